"""Measure fixer weights on renders with known photos: generated scenes and captured ones.

Two steps, because the first takes minutes and the second is repeated for each set of weights:

    uv run python benchmarks/embedded_quality.py renders --scenes SCENES --out RENDERS
    uv run difix3d-pairs --generated 12 --first-seed 5000 --test-fraction 1 --out GENERATED
    uv run python benchmarks/embedded_quality.py table --pairs RENDERS/pairs.json GENERATED/pairs.json

The first trains Gaussians on the six sparse views of every captured scene and renders its test views; with
`--for-choices` on six others of its training photos, and renders those between them, so that whatever is chosen by
them (a gate, a number of steps) is chosen without the test views. With `--suited` it trains as trainings from few
photos begin today: regularized, with a background and a near plane, once from the points of structure from motion and
once with those of stereo, too; shown are the second splat and the mean of both. The last prints gains with the right, a
wrong and no reference; `--gate off` shows the network itself. GMSD (lower is better) and HaarPSI (higher is better) are
perceptual measures that need no weights, as `piq` computes them.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from PIL import Image

SCENES = ("kermit", "miku", "fern", "garden", "lund")
MOST_SHOWN = 8
"""Photos of a scene that renders for choices are made of, at most."""

HARMED = 0.0
"""A view is harmed where its PSNR changes by less than this."""


def make_renders(
    *,
    scenes: Path,
    out: Path,
    num_views: int = 6,
    max_size: int = 256,
    max_steps: int = 1000,
    for_choices: bool = False,
    suited: bool = False,
) -> None:
    """Train on few views of every captured scene, and render others.

    Args:
        for_choices: Of training photos: the test views stay unseen.
        suited: As trainings from few photos begin today, stereo included.
    """
    from difix3d.distillation_config import SEED_STRIDE
    from difix3d.ensemble import ensemble_view
    from difix3d.pairs.few import stereo_start
    from difix3d.pairs.generated import ranked_references
    from difix_model import PairRecord, write_pairs
    from splat_recon import AdcConfig, SplatTrainer, TrainConfig, ViewSet, make_split, read_scene, with_training_points
    from splat_recon.few_photos import config_for_photos

    records = []
    for name in SCENES:
        start = time.time()
        scene = read_scene(scenes / name, max_size=max_size)
        names = [view.name for view in scene.views]
        if for_choices:
            train, shown = other_photos(make_split(names, "auto", scene_folder=scenes / name).train, num_views)
        else:
            split = make_split(names, "auto", sparse=num_views, scene_folder=scenes / name)
            train, shown = split.train, split.test
        config = TrainConfig(strategy=AdcConfig(cap_max=20_000)).scaled_to(max_steps)
        config = dataclasses.replace(config, sh_degree=1)
        scene, _ = with_training_points(scene, train)
        photos = scene.select(train)
        starts = {"": (scene, config)}
        if suited:
            config = config_for_photos(photos, config, points=scene.points)
            stereo, other = stereo_start(scene, photos), dataclasses.replace(config, seed=config.seed + SEED_STRIDE)
            starts = {"": (scene, config), "stereo_": (scene, other)}
            if stereo is not None:
                starts["stereo_"] = stereo.scene(scene), stereo.train_config(other)
        trainers = [SplatTrainer(begun, ViewSet.from_views(photos), own) for begun, own in starts.values()]
        for trainer in trainers:
            trainer.train_until(max_steps)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for view in scene.select((*train, *shown)):
            Image.fromarray(view.rgb_u8).save(folder / f"photo_{Path(view.name).stem}.png")
        for test_name in shown:
            outputs = [trainer.render(scene.view(test_name).camera) for trainer in trainers]
            pictures = {list(starts)[-1]: outputs[-1].rgb.clamp(0, 1)}
            if suited:
                pictures["mean_"] = ensemble_view(outputs, "mean").rgb
            reference = ranked_references(scene, test_name, list(train))[0]
            for kind, rgb in pictures.items():
                image = folder / f"render_{kind}{Path(test_name).stem}.png"
                Image.fromarray((rgb.numpy() * 255 + 0.5).astype(np.uint8)).save(image)
                records.append(
                    PairRecord(
                        id=f"{name}/{kind}{Path(test_name).stem}",
                        split="test",
                        image=image,
                        target_image=folder / f"photo_{Path(test_name).stem}.png",
                        ref_image=folder / f"photo_{Path(reference).stem}.png",
                        prompt="remove degradation",
                    )
                )
        print(f"{name}: {len(shown)} views, {time.time() - start:.0f} s", flush=True)
        write_pairs(out / "pairs.json", records)
    print(out / "pairs.json")


def other_photos(names: Sequence[str], num_views: int) -> tuple[list[str], list[str]]:
    """Evenly spaced photos to train on, and up to `MOST_SHOWN` of those between them, none of them a test view."""
    train = [names[int((i + 0.5) * len(names) / num_views)] for i in range(num_views)]
    between = [name for name in names if name not in train]
    return train, between[:: max(1, -(-len(between) // MOST_SHOWN))]


def print_table(
    *,
    pairs: tuple[Path, ...],
    model: str = "default",
    gate: Literal["checkpoint", "auto", "off"] = "checkpoint",
    max_samples: int | None = None,
    out: Path | None = None,
) -> None:
    """Fix the renders of pairs, and print gains."""
    import piq
    import torch

    from difix_model import DifixPipeline, read_pairs
    from image_metrics import psnr, ssim

    def rgb(path: Path | None) -> torch.Tensor:
        assert path is not None
        return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).astype(np.float32) / 255)

    def perceived(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
        x, y = (image.clamp(0, 1).permute(2, 0, 1)[None] for image in (a, b))
        return {"gmsd": float(piq.gmsd(x, y)), "haarpsi": float(piq.haarpsi(x, y))}

    pipe = DifixPipeline.from_pretrained(model)
    pipe.gate = gate
    rows: dict[str, list[dict[str, float]]] = {}
    for path in pairs:
        records = [record for record in read_pairs(path) if record.split == "test"]
        chosen = np.linspace(0, len(records) - 1, min(max_samples or len(records), len(records))).round().astype(int)
        for number, i in enumerate(chosen):
            record, other = records[i], records[chosen[(number + len(chosen) // 2) % len(chosen)]]
            rendered, photo = rgb(record.image), rgb(record.target_image)
            references = {"right": rgb(record.ref_image), "wrong": rgb(other.ref_image), "none": None}
            before_psnr, before_ssim = float(psnr(rendered, photo)), ssim(rendered, photo, border="inside")
            row = {"before": before_psnr, "before_ssim": before_ssim}
            looked = perceived(rendered, photo)
            for name, reference in references.items():
                batch = None if reference is None else reference[None]
                fixed = pipe.fix(rendered[None], batch)[0]
                row[name] = float(psnr(fixed, photo)) - before_psnr
                row[f"{name}_ssim"] = ssim(fixed, photo, border="inside") - before_ssim
                if name == "right":
                    row |= {key: value - looked[key] for key, value in perceived(fixed, photo).items()}
            scene = record.id.split("/")[0]
            rows.setdefault("generated" if scene.startswith("generated") else scene, []).append(row)
    captured = [row for scene, found in rows.items() if scene != "generated" for row in found]
    if captured:
        rows["captured, all"] = captured
    heads = "scenes", "views", "before dB", "gain dB", "SSIM", "GMSD", "HaarPSI", "harmed", "worst dB"
    print("| " + " | ".join((*heads, "wrong ref. dB", "no ref. dB")) + " |")
    print("|---" * 11 + "|")
    for scene, found in rows.items():
        mean = {key: float(np.mean([row[key] for row in found])) for key in found[0]}
        gains = np.array([row["right"] for row in found])
        print(
            f"| {scene} | {len(found)} | {mean['before']:.2f} | {mean['right']:+.3f} | {mean['right_ssim']:+.4f} | "
            f"{mean['gmsd']:+.4f} | {mean['haarpsi']:+.4f} | "
            f"{(gains < HARMED).mean():.0%} | {gains.min():+.2f} | {mean['wrong']:+.3f} | {mean['none']:+.3f} |",
            flush=True,
        )
    if out is not None:
        out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    verbs = {"renders": make_renders, "table": print_table}
    tyro.extras.subcommand_cli_from_dict(verbs, description=__doc__)
