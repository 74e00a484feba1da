"""Which captured photos a novel view is fixed with."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from difix_model.references.poses import ranked_poses
from splat_recon.scene.scene import View
from splat_render.cameras import Camera


def nearest_views(
    captured: Sequence[View], T_world_cam: Float64[np.ndarray, "n 4 4"], *, extent: float, rotation_weight: float = 1.0
) -> tuple[View, ...]:
    """For every pose the captured view that is nearest to it."""
    found = reference_cameras(captured, T_world_cam, 1, extent=extent, rotation_weight=rotation_weight)
    return tuple(nearest for _, (nearest,) in found)


def reference_cameras(
    captured: Sequence[View], T_world_cam: Float64[np.ndarray, "n 4 4"], num_references: int, **pose_weights: float
) -> list[tuple[Camera, list[View]]]:
    """For each pose a camera with the lens of the nearest captured view, and the nearest captured views.

    Args:
        num_references: How many of the nearest views, at most.
        pose_weights: `extent` and `rotation_weight`, as `ranked_poses` takes them.
    """
    T_world_captured = np.stack([view.camera.T_world_cam for view in captured])
    ranked = ranked_poses(T_world_cam, T_world_captured, num_references, **pose_weights)
    return [
        (captured[row[0]].camera.with_pose(T), [captured[index] for index in row])
        for T, row in zip(T_world_cam, ranked, strict=True)
    ]
