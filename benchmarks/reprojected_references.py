"""Do photos help more where they are reprojected into the render's own view, by the splat's own depth?

    uv run python benchmarks/reprojected_references.py --scenes SCENES --out runs/reprojected

Splats of few photos are rendered at other ones. From the three nearest photos a picture of the same view is made: what
they show at the place of every pixel, as far as they see it, and the render itself where none does. Then the embedded
weights are trained further, for the same number of steps, with the nearest photo as it is, with the reprojected picture
in its place, and with both as two further views; the gains on scenes that were held out are compared, and those on
captured scenes from six photos. The picture by itself, in place of a network, is the baseline.

Training is on coarse images, as that of the weights is (`recipes/embedded-weights`). Captured scenes are only
measured on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from difix_model.pipeline import DifixPipeline
    from splat_recon.scene.scene import Scene

SCENES = ("kermit", "miku", "fern", "garden", "lund")
NUM_PHOTOS = 3
"""Photos that are reprojected into a view."""

UNSEEN = 0.2
"""Where all photos together see a place by less than this share, the render stands in the picture."""

KINDS: dict[str, tuple[str, ...]] = {
    "no reference": (),
    "nearest photo": ("reference",),
    "reprojected": ("reprojected",),
    "both": ("reference", "reprojected"),
}
"""Views beside the render, by what they are called in the table."""

NAMES = ("render", "photo", "reference", "reprojected")
BATCH_SIZE, LEARNING_RATE, FLOOR = 16, 2e-4, 1e-3

Samples = dict[str, torch.Tensor]
"""Coarse images by name, and `irreducible_mse`; see `embedded_weights.coarse_pairs`."""


def reprojected(scene: Scene, trainer: Any, name: str, photos: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """A render, and what photos show of the same view, RGB in [0, 1], `[h w 3]`."""
    from difix3d.loop.confidence import sampled_photo
    from difix3d.loop.surface_points import DepthView, SurfacePoints

    camera = scene.view(name).camera
    output = trainer.render(camera)
    points = SurfacePoints.of(DepthView.of(camera, output))
    seen, color = torch.zeros(len(points.p_world)).double(), torch.zeros(len(points.p_world), 3).double()
    for photo in photos:
        view = scene.view(photo)
        fraction, rgb = sampled_photo(view, DepthView.of(view.camera, trainer.render(view.camera)), points)
        seen += fraction
        color += fraction[:, None] * rgb
    rendered = output.rgb.clamp(0, 1)
    picture = rendered.clone()
    shown = seen > UNSEEN
    mean = (color[shown] / seen[shown, None]).float()
    picture[points.rows_idx[shown], points.columns_idx[shown]] = mean
    return rendered, picture


def scene_samples(scene: Scene, train: list[str], shown: list[str], max_steps: int, pipe: DifixPipeline) -> Samples:
    """Train on some photos and make samples of others."""
    from difix3d.pairs.generated import ranked_references
    from embedded_weights.coarse_pairs import coarse_images
    from splat_recon.config import AdcConfig, TrainConfig
    from splat_recon.scene.training_points import with_training_points
    from splat_recon.trainer import SplatTrainer
    from splat_recon.views.view_set import ViewSet

    config = TrainConfig(strategy=AdcConfig(cap_max=20_000)).scaled_to(max_steps)
    scene, _ = with_training_points(scene, train)
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.select(train)), dataclasses.replace(config, sh_degree=1))
    trainer.train_until(max_steps)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in (*NAMES, "irreducible_mse")}
    for name in shown:
        nearest = ranked_references(scene, name, train)
        rendered, picture = reprojected(scene, trainer, name, nearest[:NUM_PHOTOS])
        photo, reference = (torch.from_numpy(scene.view(one).rgb_u8).float() / 255 for one in (name, nearest[0]))
        images = torch.stack([rendered, photo, reference, picture]).permute(0, 3, 1, 2)
        images = images[..., : images.shape[-2] // 8 * 8, : images.shape[-1] // 8 * 8]
        coarse = coarse_images(images, pipe.network)
        for key, image in zip(NAMES, coarse, strict=True):
            rows[key].append(image)
        between = (coarse[0, :3] - coarse[1, :3]).square().mean()
        rows["irreducible_mse"].append(((images[0] - images[1]).square().mean() - between).clamp(min=0))
    return {key: torch.stack(values) for key, values in rows.items()}


def generated_samples(first_seed: int, count: int, pipe: DifixPipeline) -> Samples:
    """Samples of generated scenes, five of twenty photos trained on."""
    from difix3d.pairs.config import PairsConfig
    from difix3d.pairs.sources import generated_sources

    found = []
    for source in generated_sources(count, first_seed, PairsConfig(max_size=128, num_views=20)):
        scene = source.load()
        train = list(scene.names[::4])
        found.append(scene_samples(scene, train, [name for name in scene.names if name not in train], 300, pipe))
        print(source.name, flush=True)
    return {key: torch.cat([samples[key] for samples in found]) for key in found[0]}


def captured_samples(scenes: Path, pipe: DifixPipeline) -> list[Samples]:
    """Samples of the test views of captured scenes, from their six sparse views."""
    from splat_recon.io.colmap import read_scene
    from splat_recon.scene.splits import make_split

    found = []
    for name in SCENES:
        scene = read_scene(scenes / name, max_size=256)
        split = make_split([view.name for view in scene.views], "auto", sparse=6, scene_folder=scenes / name)
        found.append(scene_samples(scene, list(split.train), list(split.test), 1000, pipe))
        print(name, flush=True)
    return found


def fixed(pipe: DifixPipeline, samples: Samples, kind: str) -> torch.Tensor:
    """What the network makes of the renders, `[b 3 h w]`."""
    from embedded_weights.prediction import predict

    views = torch.stack([samples[name] for name in ("render", *KINDS[kind])], dim=1)
    return predict(pipe.network, views, text_embedding=pipe.text_embedding)


def error(images: torch.Tensor, samples: Samples) -> torch.Tensor:
    """Mean squared error of the whole image, per sample."""
    return (images - samples["photo"][:, :3]).square().mean(dim=(1, 2, 3)) + samples["irreducible_mse"]


def gain(samples: Samples, fix: Callable[[Samples], torch.Tensor]) -> torch.Tensor:
    """By how many dB each sample comes closer to its photo."""
    with torch.no_grad():
        after = error(fix(samples).clamp(0, 1), samples)
    return -10 * torch.log10(after / error(samples["render"][:, :3], samples))


def train(pipe: DifixPipeline, samples: Samples, kind: str, max_steps: int) -> None:
    """Train the UNet further, in place."""
    unet = pipe.network.unet.requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    rng = np.random.default_rng(0)
    for step in range(max_steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 50) * (1 - step / max_steps)
        chosen = torch.from_numpy(rng.integers(len(samples["irreducible_mse"]), size=BATCH_SIZE))
        mirrored = bool(rng.random() < 0.5)
        batch = {key: value[chosen] for key, value in samples.items()}
        batch = {key: value.flip(-1) if mirrored and value.ndim == 4 else value for key, value in batch.items()}
        loss = torch.log(error(fixed(pipe, batch, kind), batch) + FLOOR).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    """Make the samples, train, compare."""
    from difix_model.pipeline import DifixPipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the captured scenes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--num-scenes", type=int, default=80)
    parser.add_argument("--num-held-out", type=int, default=16)
    parser.add_argument("--max-steps", type=int, default=300)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    made = options.out / "samples.pt"
    if not made.is_file():
        pipe = DifixPipeline.from_pretrained(options.model)
        samples = {
            "train": generated_samples(7000, options.num_scenes, pipe),
            "held": generated_samples(7500, options.num_held_out, pipe),
            "captured": captured_samples(options.scenes, pipe),
        }
        torch.save(samples, made)
    samples = torch.load(made, weights_only=True)

    def show(name: str, fix: Callable[[Samples], torch.Tensor]) -> None:
        held = gain(samples["held"], fix)
        captured = torch.cat([gain(one, fix) for one in samples["captured"]])
        row = {"what": name} | {
            key: [round(float(value.mean()), 3), round(float((value < 0).float().mean()), 2)]
            for key, value in (("held", held), ("captured", captured))
        }
        print(json.dumps(row), flush=True)
        with (options.out / "table.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    show("the picture itself", lambda one: one["reprojected"][:, :3])
    show("the picture, half of the way", lambda one: (one["render"] + one["reprojected"])[:, :3] / 2)
    for kind in KINDS:
        pipe = DifixPipeline.from_pretrained(options.model)
        show(f"{kind}, as shipped", lambda one, pipe=pipe, kind=kind: fixed(pipe, one, kind))
        train(pipe, samples["train"], kind, options.max_steps)
        show(f"{kind}, trained further", lambda one, pipe=pipe, kind=kind: fixed(pipe, one, kind))


if __name__ == "__main__":
    main()
