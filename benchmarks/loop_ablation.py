"""The loop on few photos, beside the controls without which it proves nothing, and each choice changed.

    uv run python benchmarks/loop_ablation.py --scenes SCENES --out TABLES --rows results --sparse 3 6 9 12
    uv run python benchmarks/loop_ablation.py --out TABLES --rows fixers --names generated-21 generated-22
    uv run python benchmarks/loop_ablation.py --scenes SCENES --out TABLES --rows choices --names kermit miku

results: the rows of `few_photo_rows.RESULTS`, for every scene, number of photos and seed. teaching: distillation, and
each choice of how it teaches changed (`few_photo_rows.TEACHING`). fixers: distillation with
fixers on top that know the truth, from perfect to bad (generated scenes only, whose names are generated-SEED). choices:
the loop of rounds, and each of its choices changed; there `unfixed` feeds renders back as they are, and `photos` puts
real photos, which the others are not shown, in the place of fixed views.

Every run is a line of JSON in results.jsonl; what is there already is skipped, so a stopped measurement goes on where
it was. The tables are written after every run: mean PSNR and SSIM on the held-out photos over the seeds, the spread
(standard deviation) of PSNR between the seeds, and mean processor seconds. What was not run is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from few_photo_rows import FIXERS, GENERATED, RESULTS, TEACHING, FewPhotos, train_rows

if TYPE_CHECKING:
    from difix3d import FixRequest, FixResult, ProgressiveConfig, ViewFixer
    from splat_recon import Scene, View
    from splat_render import Camera

SCENES = ("kermit", "miku", "fern", "garden", "lund")
CHOICES = (
    "gsplat",
    "plain",
    "released",
    "unfixed",
    "loop",
    "2 references",
    "twice the weight",
    "unseen pixels",
    "photos' say",
    "held back",
    "photos",
)
"""The rows of the ablation of rounds: gsplat's settings, ours for few photos without rounds, the released code's
rounds, and so on."""


class Photos:
    """Stands in the place of the fixer and returns photos, in the order of the targets."""

    def __init__(self, views: Sequence[View]) -> None:
        self._photos = [torch.tensor(view.rgb_u8).float() / 255 for view in views]
        self._next = 0

    def __call__(self, request: FixRequest) -> FixResult:
        """The next photos."""
        from difix3d import FixResult

        count = len(self._photos)
        photos = [self._photos[(self._next + index) % count] for index in range(len(request))]
        self._next = (self._next + len(request)) % count
        return FixResult.of(request, torch.stack(photos))


def changed(variant: str, config: ProgressiveConfig) -> ProgressiveConfig:
    """The config of a variant."""
    from difix3d import RoundsConfig, ValidationConfig, released_config
    from difix3d.loop.presets import released_train_config
    from splat_recon import AdcConfig

    if variant == "released":
        strategy = AdcConfig(cap_max=config.train.strategy.cap_max or 0)
        train = released_train_config(config.train.max_steps, strategy, seed=config.seed)
        return dataclasses.replace(released_config(train), seed=config.seed)
    mixture = config.mixture
    changes: dict[str, dict[str, Any]] = {
        "gsplat": {"rounds": RoundsConfig(num_rounds=0)},
        "plain": {"rounds": RoundsConfig(num_rounds=0)},
        "unfixed": {"rounds": RoundsConfig(learn_unchanged=True)},
        "2 references": {"num_references": 2},
        "twice the weight": {"mixture": dataclasses.replace(mixture, novel_weight=2 * mixture.novel_weight)},
        "unseen pixels": {"mixture": dataclasses.replace(mixture, unseen_weight=0.2)},
        "photos' say": {"mixture": dataclasses.replace(mixture, photo_tolerance=0.1)},
        "held back": {"validation": ValidationConfig(min_views=2)},
        "photos": {
            "stepping": dataclasses.replace(config.stepping, step_distance=1e6, max_turn_degrees=None),
            "rounds": RoundsConfig(num_probe_views=0),
        },
    }
    return dataclasses.replace(config, **changes.get(variant, {}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A scene and its photos."""

    scene: Scene
    captured: Sequence[View]
    others: Sequence[View]
    """Photos that are neither trained on nor held out."""

    test: Sequence[View]

    @classmethod
    def of(cls, folder: Path, sparse: int, max_size: int) -> Case:
        """Of a scene folder, with so many photos to train on."""
        from splat_recon import make_split, normalized, read_scene, with_training_points

        scene = normalized(read_scene(folder, max_size=max_size))
        few = make_split(scene.names, "auto", sparse=sparse, scene_folder=folder)
        every = make_split(scene.names, "auto", scene_folder=folder)
        scene, _ = with_training_points(scene, few.train)
        others = scene.select(each for each in every.train if each not in few.train)
        return cls(
            scene=scene,
            captured=scene.select(few.train),
            others=others,
            test=scene.select(few.test),
        )


def poses(views: Sequence[View]) -> np.ndarray:
    """Of all views, one above the other."""
    return np.stack([view.camera.T_world_cam for view in views])


def run_one(case: Case, variant: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one variant and score it, and its fixed renders beside it."""
    from difix3d import (
        EnhancedRenderer,
        IdentityFixer,
        ProgressiveConfig,
        ProgressiveTrainer,
        ValidationConfig,
        ViewFixerConfig,
        open_fixer,
        target_poses,
    )
    from splat_recon import AdcConfig, TrainConfig
    from splat_recon.evaluate import evaluate
    from splat_recon.few_photos import config_for_photos

    start = time.process_time()
    strategy = AdcConfig(cap_max=options.max_gaussians, reset_every=0)
    train = TrainConfig(strategy=strategy, seed=seed)
    if variant != "gsplat":
        train = config_for_photos(case.captured, train, points=case.scene.points)
    train = train.scaled_to(options.max_steps)
    config = changed(variant, ProgressiveConfig(train=train, validation=ValidationConfig(fraction=0), seed=seed))
    extent = case.scene.extent or 1.0
    targets = target_poses(
        config.targets,
        poses(case.captured),
        poses(case.test),
        extent=extent,
        generator=np.random.default_rng(seed),
        scene=case.scene,
    )
    fixer: ViewFixer
    if variant == "photos":
        fixer, targets = Photos(case.others), poses(case.others)
    elif variant in ("gsplat", "plain", "unfixed"):
        fixer = IdentityFixer()
    else:
        fixer = open_fixer(ViewFixerConfig(model=options.fixer), device="cpu")
    loop = ProgressiveTrainer(case.scene, case.captured, targets, fixer, config)
    loop.train_until(options.max_steps)

    def render(camera: Camera) -> torch.Tensor:
        return loop.trainer.render(camera).rgb

    scores = evaluate(render, case.test)
    result = {"psnr": scores.psnr, "ssim": scores.ssim}
    if variant == "loop":
        fixed = evaluate(EnhancedRenderer(loop.trainer.render, fixer, case.captured, extent=extent), case.test)
        result |= {"fixed_psnr": fixed.psnr, "fixed_ssim": fixed.ssim}
    return result | {
        "rounds": loop.num_rounds_done,
        "rounds_undone": loop.policy.num_rounds_undone,
        "kept_step": loop.trainer.step,
        "seconds": round(time.process_time() - start),
    }


def table(results: dict[str, dict[str, Any]], rows: Sequence[str], columns: Sequence[str], seeds: Sequence[int]) -> str:
    """Markdown: a row per variant, a column per case, their mean and processor seconds; empty where nothing was run."""
    lines = ["| | " + " | ".join(columns) + " | mean | processor s |", "|---" * (len(columns) + 3) + "|"]
    run_columns = {key.split("/")[0] for key in results} & set(columns)
    for row in rows:
        cells, means, seconds = [], [], []
        for column in columns:
            found = [results[key] for seed in seeds if (key := f"{column}/{row}/{seed}") in results]
            if not found:
                cells.append("")
                continue
            psnrs = [each["psnr"] for each in found]
            spread = f" ± {np.std(psnrs, ddof=1):.2f}" if len(psnrs) > 1 else ""
            ssim = float(np.mean([each["ssim"] for each in found]))
            cells.append(f"{np.mean(psnrs):.2f}{spread} / {ssim:.3f} ({len(found)})")
            means.append((np.mean(psnrs), ssim))
            seconds += [each["seconds"] for each in found]
        if not seconds:
            continue
        # A scene with too few photos is left out of every row.
        mean = "{:.2f} / {:.3f}".format(*np.mean(means, axis=0)) if len(means) == len(run_columns) else ""
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {mean} | {np.mean(seconds):.0f} |")
    return "\n".join(lines)


def cost(results: dict[str, dict[str, Any]], columns: Sequence[str], seeds: Sequence[int]) -> str:
    """What the loop's whole run costs, plain splat included, beside plain training; empty where neither was run."""
    pairs = [
        (results[f"{column}/plain/{seed}"]["seconds"], results[f"{column}/loop/{seed}"]["seconds"])
        for seed in seeds
        for column in columns
        if f"{column}/plain/{seed}" in results and f"{column}/loop/{seed}" in results
    ]
    if not pairs:
        return ""
    plain, loop = np.mean(pairs, axis=0)
    times = (plain + loop) / plain
    return (
        f"Mean of {len(pairs)} runs: plain training takes {plain:.1f} s, the loop's whole run {times:.2f} times that."
    )


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a file by their keys; a line that was cut off does not count."""
    results = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        results[record.pop("key")] = record
    return results


def main() -> None:
    """Run what is missing, and write the tables after every run."""
    from splat_recon import InputError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="folder with a COLMAP folder per scene")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results and tables")
    parser.add_argument("--rows", choices=sorted(ROWS), default="results")
    parser.add_argument("--only", nargs="+", help="these rows only")
    parser.add_argument("--names", nargs="+", default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--sparse", nargs="+", type=int, default=[6])
    parser.add_argument("--max-size", type=int, default=192)
    parser.add_argument("--max-steps", type=int, default=1000)
    parser.add_argument("--max-gaussians", type=int, default=30_000)
    parser.add_argument("--fixer", default="default", help="of the loop of rounds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.jsonl"
    rows = [row for row in ROWS[options.rows] if row in (options.only or ROWS[options.rows])]
    if options.rows != "choices":  # So that no row's seconds are those of compiling.
        for _ in train_rows(
            FewPhotos.of(None, f"{GENERATED}2", 3, 64), 0, ("plain", "loop"), max_steps=20, max_gaussians=5000
        ):
            pass
    for sparse in options.sparse:
        columns = [f"{name}, {sparse}" for name in options.names]
        for seed in options.seeds:
            for name, column in zip(options.names, columns, strict=True):
                results = read_results(path)
                missing = [row for row in rows if f"{column}/{row}/{seed}" not in results]
                if not missing:
                    continue
                try:
                    found = runs(options, name, sparse, seed, missing)
                    for row, scores in found:
                        results[f"{column}/{row}/{seed}"] = scores
                        with path.open("a", encoding="utf-8") as file:
                            file.write(json.dumps({"key": f"{column}/{row}/{seed}", **scores}) + "\n")
                        print(f"{column}/{row}/{seed}: {scores}", flush=True)
                        text = table(results, ROWS[options.rows], columns, options.seeds)
                        (options.out / f"{options.rows}_{sparse}.md").write_text(text + "\n", encoding="utf-8")
                except InputError as error:
                    print(f"{column}: left out, {error}", flush=True)
        results = read_results(path)
        parts = (table(results, ROWS[options.rows], columns, options.seeds), cost(results, columns, options.seeds))
        print("\n".join(filter(None, parts)), flush=True)


def runs(
    options: argparse.Namespace, name: str, sparse: int, seed: int, missing: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The missing rows of a scene, as they are done."""
    if options.rows != "choices":
        few = FewPhotos.of(options.scenes, name, sparse, options.max_size)
        print(f"{name}: {len(few.scene.points)} points. {few.stereo.summary()}", flush=True)
        yield from train_rows(few, seed, missing, max_steps=options.max_steps, max_gaussians=options.max_gaussians)
        return
    case = Case.of(options.scenes / name, sparse, options.max_size)
    for row in missing:
        if row != "photos" or case.others:
            yield row, run_one(case, row, seed, options)


ROWS = {
    "results": RESULTS,
    "teaching": ("stereo", "loop", *TEACHING),
    "fixers": ("plain", "stereo", "loop", *FIXERS),
    "choices": CHOICES,
}
"""Rows of each table."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
