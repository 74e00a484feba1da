"""How well real scenes are reconstructed on a CPU: held-out PSNR and SSIM from all views and from few, by preset.

    uv run python benchmarks/scene_quality.py [--scenes ../shared/scenes] [--out runs/scene_quality]

Every row is written as it is done; the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import torch

from splat_recon import (
    InputError,
    SplatTrainer,
    TrainConfig,
    ViewSet,
    make_split,
    mcmc_config,
    normalized,
    read_scene,
    with_training_points,
)
from splat_recon.evaluate import evaluate

NAMES = ("kermit", "miku", "fern", "garden", "lund")
SPARSE = (None, 9, 6, 3)
PRESETS = ("default", "mcmc")


def training_config(preset: str, steps: int, cap: int) -> TrainConfig:
    """The preset as the command takes it for a short run on a CPU."""
    config = TrainConfig()
    if preset == "mcmc":
        # Short runs begin with Gaussians that touch each other, as `splat-recon train --preset mcmc` does.
        config = dataclasses.replace(mcmc_config(), init_opacity=config.init_opacity, init_scale=config.init_scale)
    config = dataclasses.replace(config, strategy=dataclasses.replace(config.strategy, cap_max=cap))
    return config.scaled_to(steps)


def measure(folder: Path, sparse: int | None, preset: str, arguments: argparse.Namespace) -> dict:
    """Train, and score the held-out views half-way and at the end."""
    scene = normalized(read_scene(folder, max_size=arguments.max_size))
    split = make_split([view.name for view in scene.views], sparse=sparse, scene_folder=folder)
    config = training_config(preset, arguments.max_steps, arguments.max_gaussians)
    scene, _ = with_training_points(scene, split.train)
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.select(split.train)), config)
    held_out = scene.select(split.test)
    begun = time.perf_counter()
    scores = {}
    for step in (arguments.max_steps // 2, arguments.max_steps):
        trainer.train_until(step)
        evaluation = evaluate(lambda camera: trainer.render(camera).rgb, held_out)
        scores[step] = {"psnr": evaluation.psnr, "ssim": evaluation.ssim}
    return {
        "scene": folder.name,
        "train": len(split.train),
        "test": len(split.test),
        "sparse": sparse,
        "preset": preset,
        "scores": scores,
        "num_gaussians": len(trainer.gaussians),
        "seconds": time.perf_counter() - begun,
    }


def table(rows: list[dict]) -> str:
    """Markdown: a line for each scene and number of views."""
    lines = ["| scene | views | default half-way | default | mcmc half-way | mcmc |", "|---|---|---|---|---|---|"]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        for sparse in SPARSE:
            found = {row["preset"]: row for row in rows if (row["scene"], row["sparse"]) == (scene, sparse)}
            if not found:
                continue
            views = next(iter(found.values()))["train"]
            cells = []
            for preset in PRESETS:
                scores = list(found[preset]["scores"].values()) if preset in found else [None, None]
                cells += ["" if score is None else f"{score['psnr']:.2f} / {score['ssim']:.3f}" for score in scores]
            lines.append(f"| {scene} | {views} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(os.environ.get("DIFIX_SCENES", "../shared/scenes"))
    parser.add_argument("--scenes", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs/scene_quality"))
    parser.add_argument("--max-size", type=int, default=192)
    parser.add_argument("--max-steps", type=int, default=1000)
    parser.add_argument("--max-gaussians", type=int, default=30_000)
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--table", action="store_true", help="only print what has been measured")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "scene_quality.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    torch.set_num_threads(1)
    done = {(row["scene"], row["sparse"], row["preset"]) for row in rows}
    jobs = [(name, sparse, preset) for name in arguments.names for sparse in SPARSE for preset in PRESETS]
    for name, sparse, preset in jobs if not arguments.table else ():
        if (name, sparse, preset) in done:
            continue
        try:
            rows.append(measure(arguments.scenes / name, sparse, preset, arguments))
        except InputError as error:
            print(f"skipped: {error}", flush=True)
            continue
        with path.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
