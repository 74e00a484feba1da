"""Turntables of objects that no stage saw, and how near the splats come that are made of their first views.

The turntables are written as `diffsplat eval images` reads them, which gives the same figures for what is generated.
The controls: the splat made of another object's picture, and the mean of all other objects' true views at that camera.
"""

from __future__ import annotations

import json
from dataclasses import replace
from math import atan
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffsplat import DiffSplatPipeline, GenerationConfig
from diffsplat.cameras import flipped_axes
from diffsplat.render import rendered
from diffsplat.view_folders import VIEWS_FILE, PosedViews, object_folders, read_posed_views
from image_metrics import psnr, ssim
from synthetic_objects import FOCAL, HELD_OUT_SEED, ObjectConfig, intrinsics, orbit_rig, ray_cast, sample_object

ELEVATION_DEG = 20.0
AZIMUTHS_DEG = tuple(30.0 * index for index in range(12))
SIZE = 64


def write_turntables(out: Path, num: int, config: ObjectConfig) -> None:
    """One folder per object, named after its seed, with twelve views around it."""
    poses, K = orbit_rig(ELEVATION_DEG, AZIMUTHS_DEG), intrinsics(SIZE)
    opengl = flipped_axes(torch.from_numpy(poses)).tolist()
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + num):
        folder = out / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        generated = sample_object(seed, config)
        for index, pose in enumerate(poses):
            rgb = ray_cast(generated, pose, K, SIZE, SIZE).rgb
            Image.fromarray((255 * rgb).round().astype(np.uint8)).save(folder / f"{index:02d}.png")
        frames = [{"file_path": f"{index:02d}", "transform_matrix": pose} for index, pose in enumerate(opengl)]
        found = {"camera_angle_x": 2 * atan(0.5 / FOCAL), "up": "y", "caption": generated.caption, "frames": frames}
        (folder / VIEWS_FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def judged_images(pipe: DiffSplatPipeline, root: Path) -> dict[str, dict[str, float]]:
    """Mean PSNR and SSIM of what is made of each object's first view, and of the controls, over the eleven others.

    Args:
        pipe: Loaded with an image.
        root: Of `write_turntables`, with at least two objects.
    """
    views = [read_posed_views(folder, SIZE) for folder in object_folders(root)]
    config = replace(GenerationConfig(), elevation_deg=views[0].elevation_deg)
    images = torch.cat([one.rgb[:1] for one in views])
    made = torch.stack([_turned(pipe, config, image, views[0]) for image in images])
    true = torch.stack([one.rgb[1:] for one in views])
    others = (true.sum(dim=0) - true) / (len(true) - 1)
    compared = {"generated": made, "made of another's image": made.roll(1, dims=0), "mean of the others": others}
    return {name: _scores(found, true) for name, found in compared.items()}


def _turned(
    pipe: DiffSplatPipeline, config: GenerationConfig, image: Float[Tensor, "3 h w"], views: PosedViews
) -> Float[Tensor, "n 3 h w"]:
    (splat,) = pipe([""], config, images=image[None])
    found = rendered(splat.gaussians, views.T_world_cam[None, 1:], views.fxfycxcy[None, 1:], SIZE, SIZE)
    return found.rgb[0].clamp(0, 1)


def _scores(found: Float[Tensor, "o n 3 h w"], true: Float[Tensor, "o n 3 h w"]) -> dict[str, float]:
    pairs = zip(found.flatten(0, 1).movedim(1, -1), true.flatten(0, 1).movedim(1, -1), strict=True)
    scores = [(psnr(one, other), ssim(one, other, border="inside")) for one, other in pairs]
    return dict(zip(("psnr", "ssim"), np.mean(scores, axis=0).tolist(), strict=True))
