"""Measure flicker with and without steadying, on a real clip and on rendered camera paths.

    uv run python benchmarks/flicker.py clip --video Colosseum.mp4 --max-frames 40 --max-size 256
    uv run python benchmarks/flicker.py path --scenes SCENES --scene fern --max-frames 30
    uv run python benchmarks/flicker.py path --generated 7 --max-frames 30

`clip` has its own frames as the truth. Its input is degraded frame by frame, as sparse reconstructions are: each frame
loses its fine detail by a random blur, and soft bright and dark spots appear at random places. `path` trains Gaussians
on six views and renders a path through the cameras; the motion for the warped error is exact there, from the rendered
depth, and the truth of a generated scene is ray-cast.

The figures are defined in `difix_model.video.flicker`, on the scale of 0 to 255. "restless" stands for a fixer that
invents something else for each frame: a blotchy pattern of 8 levels on top of the default weights' result. It shows
what steadying can do, and is not a fixer that anyone uses.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Frames = list[np.ndarray]
Vectors = Sequence[Any]

RESTLESS = 8.0
"""Standard deviation of the pattern, in levels."""

PATTERN_SIDE = 6
"""Pixels."""


def degraded(frames: Frames, seed: int = 0) -> Frames:
    from PIL import ImageFilter

    rng = np.random.default_rng(seed)
    result = []
    for frame in frames:
        height, width = frame.shape[:2]
        blurred = Image.fromarray(frame).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.6, 1.4))))
        image = np.asarray(blurred).astype(np.float64)
        y, x = np.mgrid[:height, :width]
        for _ in range(12):
            center_y, center_x, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, width / 16)
            spot = np.exp(-((y - center_y) ** 2 + (x - center_x) ** 2) / (2 * size**2))
            image += rng.normal(0, 30) * spot[..., None]
        result.append(image.round().clip(0, 255).astype(np.uint8))
    return result


def restless(frames: Frames, seed: int = 1) -> Frames:
    rng = np.random.default_rng(seed)
    result = []
    for frame in frames:
        height, width = frame.shape[:2]
        coarse = rng.normal(0, RESTLESS, (height // PATTERN_SIDE + 1, width // PATTERN_SIDE + 1, 3))
        pattern = coarse.repeat(PATTERN_SIDE, 0).repeat(PATTERN_SIDE, 1)[:height, :width]
        result.append((frame + pattern).round().clip(0, 255).astype(np.uint8))
    return result


def psnr(result: Frames, truth: Frames | None) -> str:
    """Mean over frames; a dash where the truth is unknown."""
    if truth is None:
        return "–"
    errors = [((a.astype(float) - b) ** 2).mean() for a, b in zip(result, truth, strict=True)]
    return f"{np.mean([10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]):.2f}"


def print_rows(name: str, inputs: Frames, truth: Frames | None, vectors: Vectors | None, references: Any) -> None:
    from difix_model import DifixPipeline, TemporalFilterConfig
    from difix_model.video.flicker import FlickerMeter
    from difix_model.video.temporal_filter import TemporalFilter

    pipe = DifixPipeline.from_pretrained("default", batch_size=1)

    def by_network() -> Frames:
        return [pipe([frame], [references] if references else None)[0] for frame in inputs]

    def steadied(fixed: Frames, config: TemporalFilterConfig) -> Frames:
        steady = TemporalFilter(config)
        return [steady(frame, result) for frame, result in zip(inputs, fixed, strict=True)]

    def row(label: str, result: Frames, seconds: float) -> None:
        meter = FlickerMeter()
        for index, (frame, fixed) in enumerate(zip(inputs, result, strict=True)):
            meter.update(frame, fixed, None if vectors is None or not index else vectors[index])
        figures = meter.result()
        print(
            f"| {name} | {label} | {figures.change:.2f} | {figures.warped:.2f} | {psnr(result, truth)} | "
            f"{1000 * seconds / len(inputs):.0f} |",
            flush=True,
        )

    def timed(make: Callable[[], Frames]) -> tuple[Frames, float]:
        start = time.perf_counter()
        return make(), time.perf_counter() - start

    row("input", inputs, 0.0)
    fixed, seconds = timed(lambda: by_network())
    row("default weights", fixed, seconds)
    still, more = timed(lambda: steadied(fixed, TemporalFilterConfig(follow_motion=False)))
    row("… steady, without motion", still, more)
    steady, more = timed(lambda: steadied(fixed, TemporalFilterConfig()))
    row("… steady", steady, more)
    changing = restless(fixed)
    row("restless", changing, 0.0)
    steady, more = timed(lambda: steadied(changing, TemporalFilterConfig()))
    row("… steady", steady, more)


def clip_frames(video: Path, max_frames: int, max_size: int) -> Frames:
    from media_files import read_frames

    frames = []
    for frame in itertools.islice(read_frames(video), max_frames):
        image = Image.fromarray(frame)
        image.thumbnail((max_size, max_size), Image.Resampling.LANCZOS)
        frames.append(np.asarray(image))
    return frames


def rendered_path(scene: Any, train: Sequence[str], max_frames: int, max_steps: int) -> tuple[Frames, Vectors, Any]:
    from splat_recon import AdcConfig, SplatTrainer, TrainConfig, ViewSet, interpolated, with_training_points

    config = dataclasses.replace(TrainConfig(strategy=AdcConfig(cap_max=20_000)).scaled_to(max_steps), sh_degree=1)
    scene, _ = with_training_points(scene, train)
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.select(train)), config)
    trainer.train_until(max_steps)
    views = scene.select(train)
    # About a twelfth of the way between two cameras per frame, as a slow flight.
    poses = interpolated([view.camera.T_world_cam for view in views[:4]], 12)[:max_frames]
    cameras = [views[0].camera.with_pose(pose) for pose in poses]
    frames, vectors, before = [], [], None
    for camera in cameras:
        output = trainer.render(camera)
        frames.append((output.rgb.clamp(0, 1).numpy() * 255 + 0.5).astype(np.uint8))
        vectors.append(None if before is None else exact_motion(output.depth.numpy()[..., 0], camera, before))
        before = camera
    return frames, vectors, cameras


def exact_motion(depth: np.ndarray, camera: Any, before: Any) -> Any:
    """Return where each pixel was in the frame before; far outside of it where nothing was rendered."""
    import torch

    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    p_cam = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T * depth[..., None]
    p_world = p_cam @ camera.T_world_cam[:3, :3].T + camera.T_world_cam[:3, 3]
    p_before = (p_world - before.T_world_cam[:3, 3]) @ before.T_world_cam[:3, :3]
    pixels = p_before @ before.K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        vectors = pixels[..., :2] / pixels[..., 2:] - np.stack([x, y], axis=-1)
    unknown = (depth <= 0) | (p_before[..., 2] <= 0) | ~np.isfinite(vectors).all(axis=-1)
    return torch.from_numpy(np.where(unknown[..., None], 10.0 * width, vectors).astype(np.float32))


def read_path(arguments: argparse.Namespace) -> Iterator[tuple[str, Frames, Frames | None, Vectors, list[Any]]]:
    if arguments.scene is not None:
        from splat_recon import make_split, read_scene

        folder = arguments.scenes / arguments.scene
        scene = read_scene(folder, max_size=arguments.max_size)
        names = [view.name for view in scene.views]
        train = make_split(names, "auto", sparse=6, scene_folder=folder).train
        frames, vectors, _ = rendered_path(scene, train, arguments.max_frames, arguments.max_steps)
        yield arguments.scene, frames, None, vectors, [Image.fromarray(scene.view(train[0]).rgb_u8)]
    if arguments.generated is not None:
        from splat_recon import SyntheticConfig, generate_scene

        scene = generate_scene(arguments.generated, SyntheticConfig())
        names = [view.name for view in scene.views]
        train = names[:: max(len(names) // 6, 1)][:6]
        frames, vectors, cameras = rendered_path(scene, train, arguments.max_frames, arguments.max_steps)
        photo = Image.fromarray(scene.view(train[0]).rgb_u8)
        yield f"generated {arguments.generated}", frames, cast(arguments.generated, cameras), vectors, [photo]


def cast(seed: int, cameras: Sequence[Any]) -> Frames:
    """Return what cameras of a generated scene see, by the same draws that make its photos."""
    from splat_recon.scene.synthetic.config import LAYOUTS
    from splat_recon.scene.synthetic.layouts import make_world
    from splat_recon.scene.synthetic.raycast import cast_image

    rng = np.random.default_rng(seed)
    world = make_world(rng, LAYOUTS[int(rng.integers(len(LAYOUTS)))])
    return [(cast_image(world, camera, 2).clip(0, 1) * 255 + 0.5).astype(np.uint8) for camera in cameras]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    clip = verbs.add_parser("clip")
    clip.add_argument("--video", type=Path, required=True)
    path = verbs.add_parser("path")
    path.add_argument("--scenes", type=Path)
    path.add_argument("--scene")
    path.add_argument("--generated", type=int)
    path.add_argument("--max-steps", type=int, default=600)
    for parser_of_verb in (clip, path):
        parser_of_verb.add_argument("--max-frames", type=int, default=30)
        parser_of_verb.add_argument("--max-size", type=int, default=256)
    arguments = parser.parse_args()
    print("| frames | result | change flicker | warped error | PSNR dB | ms per frame |")
    print("|---|---|---|---|---|---|")
    if arguments.verb == "clip":
        truth = clip_frames(arguments.video, arguments.max_frames, arguments.max_size)
        print_rows(arguments.video.stem, degraded(truth), truth, None, [])
    else:
        for name, frames, known, motions, photos in read_path(arguments):
            print_rows(name, frames, known, motions, photos)
