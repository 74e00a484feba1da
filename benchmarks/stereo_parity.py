"""How much of a few-photo stereo is believed, and how much of that is right, on generated scenes of known depth.

    uv run python benchmarks/stereo_parity.py --seeds 11 12 13 14 15 --out runs/stereo

Prints a Markdown table: believed pixels, and those of them whose depth is within 2 % and 5 % of the truth, per scene;
then the processor time of matching and filters, after everything was compiled. Every scene has six evenly spaced photos
of 24. A picture per scene shows photo, depth and confidence.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from splat_recon import Scene


def main() -> None:
    """Match every scene, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[11, 12, 13, 14, 15, 16])
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print("| scene | believed | within 2 % | within 5 % | processor seconds |\n|---|---|---|---|---|")
    run(options.seeds[0], 2, options)  # Compiles.
    rows = [run(seed, options.photos, options, out=options.out) for seed in options.seeds]
    for name, believed, within_2, within_5, seconds in rows:
        right = "| | " if np.isnan(within_2) else f"| {within_2:.1%} | {within_5:.1%} "
        print(f"| {name} | {believed:.0%} {right}| {seconds:.1f} |")
    means = np.nanmean([row[1:] for row in rows], axis=0)
    print(f"| mean | {means[0]:.0%} | {means[1]:.1%} | {means[2]:.1%} | {means[3]:.1f} |")


def run(
    seed: int, num_photos: int, options: argparse.Namespace, *, out: Path | None = None
) -> tuple[str, float, float, float, float]:
    """Name, fraction of pixels that are believed, fractions of those within 2 % and 5 %, processor seconds."""
    from splat_recon import StereoMatching, SyntheticConfig, generate_scene, make_split
    from splat_recon.io.images import write_photo
    from splat_recon.scene.synthetic import true_depth
    from splat_recon.stereo.picture import stereo_picture

    config = SyntheticConfig(width=options.size, height=options.size * 3 // 4)
    scene = generate_scene(seed, config)
    split = make_split(scene.names, "every:3", sparse=num_photos)
    scene = with_points_of(scene, split.train)
    start = time.process_time()
    matching = StereoMatching(scene, scene.select(split.train), num_threads=options.threads)
    while not matching.done:
        matching.advance()
    maps = matching.start().depth_maps
    seconds = time.process_time() - start
    believed, errors = [], []
    for depth_map in maps:
        ratio = depth_map.inverse_depth * true_depth(seed, config, depth_map.camera)
        errors.append(np.abs(ratio - 1)[depth_map.valid])
        believed.append(depth_map.valid_fraction)
    error = np.concatenate(errors)
    if out is not None:
        write_photo(out / f"{scene.name}.png", stereo_picture(maps))
    within = [float((error < limit).mean()) if len(error) else float("nan") for limit in (0.02, 0.05)]
    return scene.name, float(np.mean(believed)), within[0], within[1], seconds


def with_points_of(scene: Scene, names: Sequence[str]) -> Scene:
    """The scene with the points that two of the photos see."""
    if not scene.points.seen_in:
        return scene
    num_seeing = np.zeros(len(scene.points), np.int64)
    for name in names:
        num_seeing[scene.points.seen_in[name]] += 1
    return dataclasses.replace(scene, points=scene.points.selected(num_seeing >= 2))


if __name__ == "__main__":
    main()
