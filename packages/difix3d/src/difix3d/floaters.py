"""Floaters of a splat of few photos: what hides views from farther away, though no known view shows it so large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from difix3d.distillation_config import FloaterConfig
from difix3d.loop.targets import target_poses
from splat_recon.trainer import SplatTrainer
from splat_render.cameras import Camera

NOVEL_STRIDE = 3
"""Every so many novel views are enough to see which Gaussians they show."""


def floaters(
    trainer: SplatTrainer, captured: Sequence[Camera], novel: Sequence[Camera], config: FloaterConfig, *, extent: float
) -> Bool[Tensor, " n"]:
    """Which Gaussians are floaters; views from farther away come from the seed of the training.

    Args:
        captured: Cameras of the photos; views from farther away have the widest lens of these, so that nothing looks
            large for its lens alone. Of one alone nothing is known from farther away: it has no floaters.
        novel: Cameras of the novel views.
        extent: Size of the scene, in its units.
    """
    if len(captured) < 2:
        return torch.zeros(len(trainer.gaussians), dtype=torch.bool, device=trainer.device)
    poses = np.stack([camera.T_world_cam for camera in captured])
    generator = np.random.default_rng(trainer.config.seed)
    far = target_poses(config.views, poses, poses[:0], extent=extent, generator=generator)
    widest = min(captured, key=lambda camera: camera.K[0, 0] * camera.K[1, 1] / (camera.width * camera.height))
    covered = trainer.largest_coverage([_halved(widest.with_pose(T_world_cam)) for T_world_cam in far])
    known = trainer.largest_coverage([_halved(camera) for camera in [*captured, *novel[::NOVEL_STRIDE]]])
    return (covered > config.coverage) & (covered > config.ratio * known)


def _halved(camera: Camera) -> Camera:
    return camera.resized(max(1, camera.width // 2), max(1, camera.height // 2))
