"""Which captured photo a novel view is fixed with."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from difix_model.references.poses import nearest_poses
from splat_recon.scene.scene import View


def nearest_views(
    captured: Sequence[View],
    T_world_cam: Float64[np.ndarray, "n 4 4"],
    *,
    extent: float,
    rotation_weight: float = 1.0,
) -> tuple[View, ...]:
    """For every pose the captured view that is nearest to it."""
    T_world_captured = np.stack([view.camera.T_world_cam for view in captured])
    nearest = nearest_poses(T_world_cam, T_world_captured, extent=extent, rotation_weight=rotation_weight)
    return tuple(captured[index] for index in nearest)
