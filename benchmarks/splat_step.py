"""What a training step of `splat_recon` costs on a CPU: its parts, how it grows with Gaussians and pixels, its memory.

    OMP_NUM_THREADS=1 uv run python benchmarks/splat_step.py --out runs/step [--scenes FOLDER ...] [--only parts]

Processor time of one thread; medians over the rounds. Real scenes are COLMAP folders; their points are filled up to the
wanted number, with sizes and opacities like those of a trained splat. Tables and a JSON file go to --out.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterizer import make_scene
from scipy.spatial import KDTree

from splat_recon import (
    AdcConfig,
    Points,
    Scene,
    SplatTrainer,
    TrainConfig,
    TrainingView,
    View,
    ViewSet,
    normalized,
    read_scene,
)
from splat_recon import trainer as trainer_module
from splat_recon.gaussians.densify_adc import AdaptiveDensityControl
from splat_recon.optim import GaussianOptimizer
from splat_render import Gaussians
from splat_render.cpu import backend as cpu_backend

NUM_VIEWS = 8
WARM_UP = 6
"""Steps before the first that counts: compilation, and spherical harmonics of all degrees."""

FEW, MANY = 20_000, 220_000
"""Gaussians of the processes whose peaks are compared."""

PARTS: list[tuple[Any, str, str]] = [
    (cpu_backend, "project", "projection"),
    (cpu_backend, "bin_splats", "tile lists"),
    (cpu_backend, "blend", "blend forward"),
    (cpu_backend, "blend_backward", "blend backward"),
    (cpu_backend, "project_backward", "projection backward"),
    (cpu_backend._Rasterize, "forward", "rasterizer forward, whole"),
    (cpu_backend._Rasterize, "backward", "rasterizer backward, whole"),
    (trainer_module, "photometric", "L1 and SSIM forward"),
    (torch.Tensor, "backward", "backward, whole"),
    (GaussianOptimizer, "step", "optimizer"),
    (AdaptiveDensityControl, "after_step", "density control"),
    (ViewSet, "sample", "view fetch"),
    *((kind, "rgb_on", "view fetch") for kind in (TrainingView, *TrainingView.__subclasses__())),
]
"""What a step calls: where it is, its name, and the part of the step that it counts as."""

KERNELS = {
    "forward": ("projection", "tile lists", "blend forward"),
    "backward": ("blend backward", "projection backward"),
}


def prepared(
    folder: Path | None, size: int, num_gaussians: int, num_photos: int | None = None
) -> tuple[Scene, Gaussians]:
    """Photos of a scene, the same ones again where more are asked for, and Gaussians to start from."""
    if folder is None:
        gaussians, camera = make_scene(num_gaussians, size)
        gaussians = gaussians.detach()
        dyed = gaussians.mapped(lambda tensor: tensor.roll(1, dims=0) if tensor.ndim == 3 else tensor)
        rgb = cpu_backend.CpuRasterizer()(dyed, camera, sh_degree=3).rgb.clamp(0, 1)
        views = [View(name="generated", camera=camera, rgb_u8=(255 * rgb).byte().numpy())]
    else:
        scene = normalized(read_scene(folder, max_size=size))
        views = list(scene.views[:: max(1, len(scene.views) // NUM_VIEWS)][:NUM_VIEWS])
        gaussians = filled_up(scene.points, num_gaussians)
    named = enumerate(islice(cycle(views), num_photos or len(views)))
    views = [View(name=f"{index:04d}", camera=view.camera, rgb_u8=view.rgb_u8.copy()) for index, view in named]
    points = Points(p_world=np.zeros((1, 3), np.float32), rgb_u8=np.zeros((1, 3), np.uint8))
    return Scene(views=tuple(views), points=points), gaussians


def filled_up(points: Points, num_gaussians: int) -> Gaussians:
    """So many Gaussians around a scene's points, with the spread of sizes and opacities of a trained splat."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    source = rng.permutation(np.resize(rng.permutation(len(points)), num_gaussians))
    gap = KDTree(points.p_world).query(points.p_world, k=4)[0][:, 1:].mean(axis=1)[source]
    gap = np.minimum(gap, np.quantile(gap, 0.95))
    means = points.p_world[source] + 0.5 * gap[:, None] * rng.standard_normal((num_gaussians, 3))
    gap = KDTree(means).query(means, k=4)[0][:, 1:].mean(axis=1)
    rgb = torch.from_numpy(points.rgb_u8[source].astype(np.float32) / 255)
    return Gaussians(
        means=torch.from_numpy(means.astype(np.float32)),
        log_scales=torch.from_numpy(np.log(0.55 * gap + 1e-6).astype(np.float32))[:, None]
        + 0.4 * normal(len(means), 3),
        quats_wxyz=normal(len(means), 4),
        logit_opacities=0.5 + 2 * normal(len(means)),
        sh0=((rgb - 0.5) / 0.28209479177387814)[:, None],
        sh_rest=0.05 * normal(len(means), 15, 3),
    )


def new_trainer(scene: Scene, gaussians: Gaussians, device: str = "cpu") -> SplatTrainer:
    """A training that keeps statistics of density control from the start; nothing grows or goes in so few steps."""
    config = TrainConfig(sh_degree_every=1, strategy=AdcConfig())
    return SplatTrainer(scene, ViewSet.from_views(scene.views), config, device=device, gaussians=gaussians)


def watch_parts() -> dict[str, float]:
    """Count processor seconds by part from now on, in the dictionary that comes back."""
    spent: dict[str, float] = {}

    def watched(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            result = function(*arguments, **named)
            spent[label] = spent.get(label, 0.0) + time.process_time() - start
            return result

        return timed

    for owner, name, label in PARTS:
        timed = watched(getattr(owner, name), label)
        setattr(owner, name, staticmethod(timed) if owner is cpu_backend._Rasterize else timed)
    return spent


def step_ms(trainer: SplatTrainer, options: argparse.Namespace, spent: dict[str, float]) -> dict[str, float]:
    """Milliseconds of a step and of the parts that are watched, medians over the rounds."""
    trainer.train_until(WARM_UP)
    rounds = []
    for _ in range(options.rounds):
        spent.clear()
        start = time.process_time()
        trainer.train_until(trainer.step + options.steps)
        seconds = {"step": time.process_time() - start} | spent
        rounds.append({name: 1e3 * value / options.steps for name, value in seconds.items()})
    return {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}


def with_rest(parts: dict[str, float]) -> dict[str, float]:
    """Parts that add up to the step: what is inside a whole is taken out of it."""
    forward, backward = (
        parts[f"rasterizer {way}, whole"] - sum(parts[name] for name in names) for way, names in KERNELS.items()
    )
    inside = parts["rasterizer forward, whole"] + parts["backward, whole"] + parts["L1 and SSIM forward"]
    inside += parts["optimizer"] + parts["density control"] + parts["view fetch"]
    return {name: value for name, value in parts.items() if "whole" not in name} | {
        "rasterizer, outside its kernels": forward + backward,
        "loss backward and autograd": parts["backward, whole"] - parts["rasterizer backward, whole"],
        "everything else": parts["step"] - inside,
    }


def growth(folder: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """Step time over Gaussians and pixels, with the exponent of its growth at every image size."""
    rows = []
    for size in options.sizes:
        for number in options.gaussians:
            scene, gaussians = prepared(folder, size, number)
            seen, pairs = visible(scene, gaussians)
            cost = step_ms(new_trainer(scene, gaussians), options, {})["step"]
            rows.append({"size": size, "gaussians": number, "visible": seen, "intersections": pairs, "step": cost})
            print(f"  {rows[-1]}", flush=True)
    exponents = {
        f"{size} px, by {by}": slope([row for row in rows if row["size"] == size], by)
        for size in options.sizes
        for by in ("visible", "intersections")
        if len(options.gaussians) > 1
    }
    return {"rows": rows, "exponents": exponents}


def slope(rows: list[dict[str, Any]], by: str) -> float:
    """Exponent p of step ~ by^p, fitted to logarithms."""
    return float(np.polyfit(np.log([row[by] for row in rows]), np.log([row["step"] for row in rows]), 1)[0])


def visible(scene: Scene, gaussians: Gaussians) -> tuple[float, float]:
    """Mean number of visible Gaussians and of tile intersections over the views."""
    counts: list[int] = []
    binned = cpu_backend.bin_splats

    def count(*arguments: Any) -> Any:
        bins = binned(*arguments)
        counts.append(len(bins[0]))
        return bins

    cpu_backend.bin_splats = count
    try:
        with torch.no_grad():
            renders = [cpu_backend.CpuRasterizer()(gaussians, view.camera, sh_degree=0) for view in scene.views]
    finally:
        cpu_backend.bin_splats = binned
    return statistics.mean(int((render.stats.radii_px > 0).sum()) for render in renders), statistics.mean(counts)


def memory(options: argparse.Namespace) -> dict[str, float]:
    """Peak memory per Gaussian and per photo, as differences between processes that train some steps."""

    def peak(gaussians: int, photos: int) -> int:
        command = [sys.executable, __file__, "--size", str(options.size), "--peak", str(gaussians), str(photos)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    peak(FEW, 1)  # Compiling needs memory of its own.
    small = peak(FEW, 1)
    return {
        "peak_mb": small / 1e6,
        "bytes_per_gaussian": (peak(MANY, 1) - small) / (MANY - FEW),
        "bytes_per_photo": (peak(FEW, 201) - small) / 200,
        "photo_bytes": 3.0 * options.size**2,
    }


def tables(results: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = []
    for name, found in results.get("parts", {}).items():
        lines += [f"\n{name}, {results['setting']}\n", "| part | CPU ms per step |", "|---|---|"]
        lines += [f"| {label} | {value:.2f} |" for label, value in found.items()]
    for name, found in results.get("growth", {}).items():
        lines += [f"\n{name}\n", "| pixels | Gaussians | visible | tile intersections | CPU ms per step |"]
        lines += ["|---|---|---|---|---|"]
        lines += [
            f"| {row['size']} | {row['gaussians']} | {row['visible']:.0f} | {row['intersections']:.0f} "
            f"| {row['step']:.1f} |"
            for row in found["rows"]
        ]
        lines += ["", *(f"exponent at {label}: {value:.2f}" for label, value in found["exponents"].items())]
    if "memory" in results:
        lines.append(f"\nmemory: {json.dumps(results['memory'])}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ["parts", "growth", "memory"]
    parser.add_argument("--out", type=Path, help="folder for the tables")
    parser.add_argument("--scenes", type=Path, nargs="*", default=[], help="COLMAP folders beside the generated scene")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--size", type=int, default=256, help="longer side where the size does not vary")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 384, 512])
    parser.add_argument("--gaussians", type=int, nargs="+", default=[10_000, 20_000, 50_000, 100_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per round")
    parser.add_argument("--peak", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    if options.peak:
        new_trainer(*prepared(None, options.size, *options.peak)).train_until(WARM_UP)
        print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    scenes: dict[str, Path | None] = {"generated": None} | {path.name: path for path in options.scenes}
    results: dict[str, Any] = {"setting": f"{options.gaussians[0]} Gaussians, {options.size} px"}
    if "growth" in options.only:
        results["growth"] = {name: growth(folder, options) for name, folder in scenes.items()}
    if "memory" in options.only:
        results["memory"] = memory(options)
    if "parts" in options.only:
        spent, results["parts"] = watch_parts(), {}
        for name, folder in scenes.items():
            trainer = new_trainer(*prepared(folder, options.size, options.gaussians[0]))
            results["parts"][name] = with_rest(step_ms(trainer, options, spent))
    print(tables(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "splat_step.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (options.out / "splat_step.md").write_text(tables(results) + "\n", encoding="utf-8")
        print(f"\n{options.out / 'splat_step.md'}")


if __name__ == "__main__":
    main()
