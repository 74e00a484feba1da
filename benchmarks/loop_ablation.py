"""The progressive loop with each of its choices on and off, beside the controls without which it proves nothing.

    uv run python benchmarks/loop_ablation.py --scenes SCENES --out TABLES [--names kermit miku] [--seeds 1 2 3]

For every scene and seed a splat is trained plainly, with the loop, and with the loop and one choice changed. Controls:
`unfixed` feeds renders back as they are; `photos` puts real photos, which the others are not shown, in the place of
fixed views (the ceiling). What is there already is skipped, so a stopped run goes on where it was. The table is printed
after every run: mean PSNR and SSIM on the held-out photos over the seeds, and the spread of PSNR between the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from difix3d.config import ProgressiveConfig
    from difix3d.fixers import ViewFixer
    from splat_recon.scene.scene import Scene, View

SCENES = ("kermit", "miku", "fern", "garden", "lund")
VARIANTS = (
    "plain",
    "unfixed",
    "loop",
    "pool of 3 rounds",
    "opacity weights",
    "agreement weights",
    "2 references",
    "coverage targets",
    "held back",
    "photos",
)
"""What is compared, in the order of the table."""


class Photos:
    """Stands in the place of the fixer and returns photos, in the order of the targets."""

    def __init__(self, views: Sequence[View]) -> None:
        self._photos = [torch.tensor(view.rgb_u8).float() / 255 for view in views]
        self._next = 0

    def __call__(self, rendered: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """The next photos."""
        del references
        count = len(self._photos)
        photos = [self._photos[(self._next + index) % count] for index in range(len(rendered))]
        self._next = (self._next + len(rendered)) % count
        return torch.stack(photos)


def changed(variant: str, config: ProgressiveConfig) -> ProgressiveConfig:
    """The config of a variant."""
    from difix3d.config import EvenRounds, HoldBackConfig, PoolConfig
    from difix3d.target_config import CoverageTargets

    mixture = config.mixture
    changes: dict[str, dict[str, Any]] = {
        "plain": {"rounds": EvenRounds(num_rounds=0)},
        "pool of 3 rounds": {"pool": PoolConfig(num_rounds=3)},
        "opacity weights": {"mixture": dataclasses.replace(mixture, soft_alpha=True)},
        "agreement weights": {"mixture": dataclasses.replace(mixture, agreement=0.1)},
        "2 references": {"num_references": 2},
        "coverage targets": {"targets": CoverageTargets()},
        "held back": {"hold_back": HoldBackConfig()},
        "photos": {"stepping": dataclasses.replace(config.stepping, step_distance=1e6, max_turn_degrees=None)},
    }
    return dataclasses.replace(config, **changes.get(variant, {}))


def run_one(
    scene: Scene, captured: Sequence[View], others: Sequence[View], test: Sequence[View], variant: str, options: Any
) -> dict[str, Any]:
    """Train one variant and score it."""
    from difix3d.config import HoldBackConfig, ProgressiveConfig
    from difix3d.fixers import IdentityFixer, load_fixer
    from difix3d.progressive import ProgressiveTrainer
    from difix3d.targets import target_poses
    from splat_recon.config import AdcConfig, TrainConfig
    from splat_recon.evaluate import evaluate

    start = time.time()
    strategy = AdcConfig(cap_max=options.max_gaussians, reset_every=0)
    train = TrainConfig(strategy=strategy, seed=options.seed).scaled_to(options.max_steps)
    base = ProgressiveConfig(train=train, hold_back=HoldBackConfig(share=0), seed=options.seed)
    config = changed(variant, base)
    poses = [np.stack([view.camera.T_world_cam for view in views]) for views in (captured, others or captured, test)]
    fixer: ViewFixer = IdentityFixer() if variant in ("plain", "unfixed") else load_fixer(options.fixer, device="cpu")
    targets = target_poses(
        config.targets,
        poses[0],
        poses[2],
        extent=scene.extent,
        generator=np.random.default_rng(options.seed),
        scene=scene,
    )
    if variant == "photos":
        fixer, targets = Photos(others), poses[1]
    loop = ProgressiveTrainer(scene, captured, targets, fixer, config)
    loop.train_until(options.max_steps)
    scores = evaluate(lambda camera: loop.trainer.render(camera).rgb, test)
    undone = loop.watch.num_rounds_undone if loop.watch else 0
    return {
        "psnr": scores.psnr,
        "ssim": scores.ssim,
        "rounds": loop.num_rounds_done,
        "rounds_undone": undone,
        "kept_step": loop.trainer.step,
        "seconds": round(time.time() - start),
    }


def table(results: dict[str, dict[str, Any]], names: Sequence[str], seeds: Sequence[int]) -> str:
    """Markdown: a row per variant, a column per scene; `-` where nothing was run."""
    lines = ["| variant | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for variant in VARIANTS:
        cells = []
        for name in names:
            found = [results[key] for seed in seeds if (key := f"{name}/{variant}/{seed}") in results]
            if not found:
                cells.append("-")
                continue
            psnrs = [result["psnr"] for result in found]
            spread = f" ± {np.std(psnrs):.2f}" if len(psnrs) > 1 else ""
            cells.append(f"{np.mean(psnrs):.2f}{spread} / {np.mean([result['ssim'] for result in found]):.3f}")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table after every run."""
    from splat_recon.io.colmap import read_scene
    from splat_recon.scene.normalize import normalized
    from splat_recon.scene.splits import make_split

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="folder with a COLMAP folder per scene")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and table.md")
    parser.add_argument("--names", nargs="+", default=list(SCENES))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--sparse", type=int, default=6)
    parser.add_argument("--max-size", type=int, default=256)
    parser.add_argument("--max-steps", type=int, default=1500)
    parser.add_argument("--max-gaussians", type=int, default=30_000)
    parser.add_argument("--fixer", default="default")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.json"
    results: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    for seed in options.seeds:
        options.seed = seed
        for name in options.names:
            folder = options.scenes / name
            scene = normalized(read_scene(folder, max_size=options.max_size))
            sparse = make_split(scene.names, "auto", sparse=options.sparse, scene_folder=folder)
            every = make_split(scene.names, "auto", scene_folder=folder)
            captured, test = scene.select(sparse.train), scene.select(sparse.test)
            others = scene.select(each for each in every.train if each not in sparse.train)
            for variant in options.variants:
                key = f"{name}/{variant}/{seed}"
                if key in results or (variant == "photos" and not others):
                    continue
                results[key] = run_one(scene, captured, others, test, variant, options)
                part = path.with_suffix(".part")
                part.write_text(json.dumps(results, indent=1) + "\n")
                part.replace(path)
                print(f"{key}: {results[key]}", flush=True)
                text = table(results, options.names, options.seeds)
                (options.out / "table.md").write_text(text + "\n")
                print(text, flush=True)


if __name__ == "__main__":
    main()
