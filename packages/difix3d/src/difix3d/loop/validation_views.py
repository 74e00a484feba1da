"""Which captured views are validation photos: kept from a second splat, which is scored on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from difix_model.references.poses import pose_distances

if TYPE_CHECKING:
    from difix3d.loop.config import ValidationConfig
    from splat_recon.scene.scene import View


def held_back_views(
    captured: Sequence[View], config: ValidationConfig, *, extent: float
) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """The validation photos, none where there are too few views, and the others."""
    poses = np.stack([view.camera.T_world_cam for view in captured])
    chosen = most_replaceable(poses, config.num_views(len(captured)), extent=extent)
    others = tuple(view for index, view in enumerate(captured) if index not in chosen)
    return tuple(captured[index] for index in chosen), others


def most_replaceable(T_world_cam: Float64[np.ndarray, "n 4 4"], num_views: int, *, extent: float) -> list[int]:
    """The views that are missed least: again and again the one nearest to another that stays, the first of equals."""
    distances = pose_distances(T_world_cam, T_world_cam, extent=extent)
    np.fill_diagonal(distances, np.inf)
    chosen: list[int] = []
    for _ in range(min(num_views, len(distances) - 1)):
        stays = [index for index in range(len(distances)) if index not in chosen]
        nearest = distances[np.ix_(stays, stays)].min(axis=1)
        # A view beside one that was chosen already would leave a gap of two.
        near_chosen = distances[np.ix_(stays, chosen)].min(axis=1) if chosen else np.full(len(stays), np.inf)
        chosen.append(stays[int(np.argmin(np.where(near_chosen > nearest, nearest, nearest + 1e6)))])
    return sorted(chosen)
