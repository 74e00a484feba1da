"""Generated objects, seen from all around: data that every machine can make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from sparsefusion.cameras import Cameras
from sparsefusion.data.colmap import CAMERA_DISTANCE, FLIP
from sparsefusion.data.sequence import ObjectSequence
from synthetic_objects import COLORS, RADIUS, ObjectConfig, intrinsics, orbit_pose, ray_cast, sample_object
from synthetic_objects import HELD_OUT_SEED as HELD_OUT_SEED

VISIBLE_COLORS = tuple(name for name in COLORS if name != "black")
"""Colors that are seen before black, which is what masked photos have behind the object."""

ELEVATION_DEG = 20.0
"""Mean height of the cameras of a ring over the horizon."""

ELEVATION_SWING_DEG = 10.0
"""Every other camera of a ring stands higher by this, the others lower."""

SCATTERED_ELEVATIONS_DEG = (0.0, 40.0)
"""Scattered cameras stand between these heights over the horizon."""


def ring_poses(num_views: int) -> list[Float[np.ndarray, "4 4"]]:
    """`T_world_cam` of evenly spaced cameras, higher and lower by turns."""
    swings = (ELEVATION_SWING_DEG * (1 if view % 2 else -1) for view in range(num_views))
    return [orbit_pose(ELEVATION_DEG + swing, 360.0 * view / num_views) for view, swing in enumerate(swings)]


def scattered_poses(num_views: int, seed: int) -> list[Float[np.ndarray, "4 4"]]:
    """`T_world_cam` of cameras at random places around, the same for a seed."""
    rng = np.random.default_rng([seed, 2])
    return [
        orbit_pose(float(rng.uniform(*SCATTERED_ELEVATIONS_DEG)), float(rng.uniform(0, 360))) for _ in range(num_views)
    ]


def generated_sequence(
    seed: int,
    num_views: int = 8,
    image_size: int = 128,
    *,
    poses: Sequence[Float[np.ndarray, "4 4"]] | None = None,
) -> ObjectSequence:
    """A generated object from all sides; the same arguments give the same one.

    Args:
        image_size: Side of the images, in pixels.
        poses: `T_world_cam` of other cameras (OpenCV's axes, `synthetic_objects.RADIUS` away), instead of the ring.
    """
    made = sample_object(seed, ObjectConfig(colors=VISIBLE_COLORS))
    K = intrinsics(image_size)
    scale = CAMERA_DISTANCE / RADIUS
    rgb, masks, rotations, translations = [], [], [], []
    for T_world_cam in ring_poses(num_views) if poses is None else poses:
        maps = ray_cast(made, T_world_cam, K, image_size, image_size, background=(0.0, 0.0, 0.0))
        rgb.append(torch.from_numpy(maps.rgb).permute(2, 0, 1))
        masks.append(torch.from_numpy(maps.mask)[None])
        T_cam_world = torch.from_numpy(np.linalg.inv(T_world_cam))
        rotations.append(T_cam_world[:3, :3].T * FLIP.double())
        translations.append(scale * T_cam_world[:3, 3] * FLIP.double())
    count = len(rgb)
    focal = torch.full((count, 2), float(K[0, 0]) / (image_size / 2))
    cameras = Cameras(torch.stack(rotations).float(), torch.stack(translations).float(), focal, torch.zeros(count, 2))
    masks_ = torch.stack(masks).float()
    names = tuple(f"{view:03d}" for view in range(count))
    return ObjectSequence(
        f"generated_{seed:03d}", torch.stack(rgb).float(), masks_, torch.ones_like(masks_), cameras, names
    )
