"""Points to start from where structure from motion gave none."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from splat_recon.scene.scene import Points

NUM_POINTS = 20_000
"""How many points are drawn."""

NEAREST, FARTHEST = 0.3, 3.0
"""Range of depths, as multiples of the distance to what the cameras look at."""


def random_points(
    poses: Sequence[Float64[np.ndarray, "4 4"]], tangents: Sequence[float], *, count: int = NUM_POINTS, seed: int = 0
) -> Points:
    """Gray points spread over what cameras see, as many at each scale of depth.

    Args:
        poses: Camera-to-world matrices, at least one.
        tangents: Tangent of half the angle of view of each camera.
    """
    T_world_cam, tangent = np.stack(list(poses)), np.array(tangents, dtype=np.float64)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(T_world_cam), size=count)
    depth = focus_distance(T_world_cam) * np.exp(rng.uniform(np.log(NEAREST), np.log(FARTHEST), size=count))
    across = rng.uniform(-1, 1, size=(count, 2)) * tangent[chosen, None] * depth[:, None]
    p_cam = np.concatenate([across, depth[:, None]], axis=1)
    p_world = np.einsum("nij,nj->ni", T_world_cam[chosen, :3, :3], p_cam) + T_world_cam[chosen, :3, 3]
    rgb_u8 = rng.integers(64, 192, size=(count, 1), dtype=np.uint8).repeat(3, axis=1)
    return Points(p_world=p_world, rgb_u8=rgb_u8, at_random=True)


def focus_distance(T_world_cam: Float64[np.ndarray, "n 4 4"]) -> float:
    """How far away the cameras look: the median depth of the point nearest to all optical axes.

    Cameras that look along each other's directions have no such point, or have it behind them: then three times the
    extent of their centers, and 1 where they all stand in one place.
    """
    # Seen from the middle of the cameras: the world's origin may be far away.
    centers, forward = T_world_cam[:, :3, 3] - T_world_cam[:, :3, 3].mean(axis=0), T_world_cam[:, :3, 2]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    total = across.sum(axis=0)
    extent = float(np.linalg.norm(centers, axis=1).max())
    fallback = 3 * extent if extent > 0 else 1.0
    if np.linalg.cond(total) > 1e4:
        return fallback
    focus = np.linalg.solve(total, np.einsum("nij,nj->i", across, centers))
    depth = float(np.median(((focus - centers) * forward).sum(axis=1)))
    return depth if depth > 0.1 * extent else fallback
