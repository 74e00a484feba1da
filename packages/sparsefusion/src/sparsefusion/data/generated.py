"""Generated objects, seen from all around: data that every machine can make."""

from __future__ import annotations

import numpy as np
import torch

from sparsefusion.cameras import Cameras
from sparsefusion.data.colmap import CAMERA_DISTANCE, FLIP
from sparsefusion.data.sequence import ObjectSequence
from synthetic_objects import RADIUS, intrinsics, orbit_pose, ray_cast, sample_object

ELEVATION_DEG = 20.0
"""Mean height of the cameras over the horizon."""

ELEVATION_SWING_DEG = 10.0
"""Every other camera stands higher by this, the others lower."""


def generated_sequence(seed: int, num_views: int = 8, image_size: int = 128) -> ObjectSequence:
    """A generated object from evenly spaced sides; the same seed gives the same one.

    Args:
        seed: Which object.
        num_views: Cameras around it.
        image_size: Side of the images, in pixels.
    """
    made = sample_object(seed)
    K = intrinsics(image_size)
    scale = CAMERA_DISTANCE / RADIUS
    rgb, masks, rotations, translations = [], [], [], []
    for view in range(num_views):
        elevation = ELEVATION_DEG + ELEVATION_SWING_DEG * (1 if view % 2 else -1)
        T_world_cam = orbit_pose(elevation, 360.0 * view / num_views)
        maps = ray_cast(made, T_world_cam, K, image_size, image_size, background=(0.0, 0.0, 0.0))
        rgb.append(torch.from_numpy(maps.rgb).permute(2, 0, 1))
        masks.append(torch.from_numpy(maps.mask)[None])
        T_cam_world = torch.from_numpy(np.linalg.inv(T_world_cam))
        rotations.append(T_cam_world[:3, :3].T * FLIP.double())
        translations.append(scale * T_cam_world[:3, 3] * FLIP.double())
    focal = torch.full((num_views, 2), float(K[0, 0]) / (image_size / 2))
    cameras = Cameras(
        torch.stack(rotations).float(), torch.stack(translations).float(), focal, torch.zeros(num_views, 2)
    )
    masks_ = torch.stack(masks).float()
    names = tuple(f"{view:03d}" for view in range(num_views))
    return ObjectSequence(
        f"generated_{seed:03d}", torch.stack(rgb).float(), masks_, torch.ones_like(masks_), cameras, names
    )
