"""Where novel views go."""

import itertools

import numpy as np
from jaxtyping import Float64

from difix3d.config import AroundTargets, PathTargets, Targets
from difix3d.errors import InputError
from difix3d.references import pose_distances
from difix3d.stepping import interpolated_pose

MIDDLE = (0.25, 0.75)
"""Targets between two captured views lie in this part of the way from one to the other."""


def target_poses(
    config: Targets,
    T_world_captured: Float64[np.ndarray, "n 4 4"],
    T_world_held_out: Float64[np.ndarray, "m 4 4"],
    *,
    extent: float,
    generator: np.random.Generator,
) -> Float64[np.ndarray, "k 4 4"]:
    """The poses that novel views move toward.

    Args:
        config: Which; only `HeldOutTargets` looks at the held-out poses.
        T_world_captured: Poses of the views that are trained on.
        T_world_held_out: Poses of the views that the result is judged by.
        extent: The scene's extent, for comparing poses.
        generator: For the random part of `AroundTargets`.

    Raises:
        InputError: There are too few views for the choice made.
    """
    if isinstance(config, AroundTargets | PathTargets) and len(T_world_captured) < 2:
        raise InputError(
            f"novel views between captured views need at least 2 captured views, got {len(T_world_captured)}: "
            "give more views, or choose the held-out poses as targets"
        )
    if isinstance(config, AroundTargets):
        return _around(config, T_world_captured, extent, generator)
    if isinstance(config, PathTargets):
        return path_poses(T_world_captured, config.num_views, extent=extent)
    if not len(T_world_held_out):
        raise InputError("there are no held-out views whose poses novel views could move toward")
    return T_world_held_out.copy()


def _around(
    config: AroundTargets,
    T_world_captured: Float64[np.ndarray, "n 4 4"],
    extent: float,
    generator: np.random.Generator,
) -> Float64[np.ndarray, "k 4 4"]:
    distances = pose_distances(T_world_captured, T_world_captured, extent=extent)
    np.fill_diagonal(distances, np.inf)
    neighbors = np.argsort(distances, axis=1, kind="stable")[:, : min(config.num_neighbors, len(distances) - 1)]
    targets = []
    for index in range(config.num_views):
        one = T_world_captured[index % len(T_world_captured)]
        other = T_world_captured[generator.choice(neighbors[index % len(T_world_captured)])]
        target = interpolated_pose(one, other, generator.uniform(*MIDDLE))
        baseline = np.linalg.norm(other[:3, 3] - one[:3, 3])
        target[:3, 3] += generator.normal(size=3) * config.jitter * baseline
        targets.append(target)
    return np.stack(targets)


def path_poses(
    T_world_captured: Float64[np.ndarray, "n 4 4"], num_poses: int, *, extent: float
) -> Float64[np.ndarray, "k 4 4"]:
    """Evenly spaced poses on a path through all captured views, each followed by the nearest one not yet passed.

    The path starts at the view that is farthest from all others together, an end of the capture where there is one.

    Raises:
        ValueError: There is no captured view, or no pose is asked for.
    """
    if not len(T_world_captured) or num_poses < 1:
        raise ValueError(f"expected views and poses, got {len(T_world_captured)} views and {num_poses} poses")
    distances = pose_distances(T_world_captured, T_world_captured, extent=extent)
    order = [int(np.argmax(distances.sum(axis=1)))]
    while len(order) < len(distances):
        left = [index for index in range(len(distances)) if index not in order]
        order.append(min(left, key=lambda index: distances[order[-1], index]))
    lengths = [distances[one, other] for one, other in itertools.pairwise(order)]
    passed = np.concatenate([[0.0], np.cumsum(lengths)])
    poses = []
    for position in np.linspace(0, passed[-1], num_poses):
        segment = int(np.clip(np.searchsorted(passed, position, side="right") - 1, 0, max(len(order) - 2, 0)))
        if len(order) == 1:
            poses.append(T_world_captured[order[0]].copy())
            continue
        fraction = (position - passed[segment]) / max(lengths[segment], 1e-12)
        poses.append(
            interpolated_pose(T_world_captured[order[segment]], T_world_captured[order[segment + 1]], float(fraction))
        )
    return np.stack(poses)
