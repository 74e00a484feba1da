"""Where novel views go."""

import itertools

import numpy as np
from jaxtyping import Float64

from difix3d.errors import InputError
from difix3d.loop.target_config import (
    AroundTargets,
    FileTargets,
    HeldOutTargets,
    OrbitTargets,
    PathTargets,
    PerturbedTargets,
    SpiralTargets,
    SpreadTargets,
    Targets,
)
from difix_model.references.poses import pose_distances
from difix_model.references.stepping import interpolated_pose
from splat_recon.geometry.trajectories import orbit, spiral
from splat_recon.io.camera_files import read_camera_file
from splat_recon.scene.scene import Scene
from splat_render.poses import transform_camera

MIDDLE = (0.25, 0.75)
"""Targets between two captured views lie in this part of the way from one to the other."""

MIN_ORBIT = 1e-9
"""Captured views that lie nearer together than this stand at one place."""

BETWEEN = (0.2, 0.4, 0.6, 0.8)
"""Fractions of the way between two neighbors at which views of `SpreadTargets` lie."""


def target_poses(
    config: Targets,
    T_world_captured: Float64[np.ndarray, "n 4 4"],
    T_world_held_out: Float64[np.ndarray, "m 4 4"],
    *,
    extent: float,
    generator: np.random.Generator,
    scene: Scene | None = None,
) -> Float64[np.ndarray, "k 4 4"]:
    """The poses that novel views move toward.

    Args:
        config: Which; only `HeldOutTargets` looks at the test poses.
        scene: For `SpiralTargets` (depths of its points) and `FileTargets` (its frame).

    Raises:
        InputError: There are too few views for the choice made, or the file is not usable.
    """
    if isinstance(config, FileTargets):
        return _from_file(config, scene)
    if isinstance(config, HeldOutTargets):
        if not len(T_world_held_out):
            raise InputError("there are no test views whose poses novel views could move toward")
        return T_world_held_out.copy()
    if len(T_world_captured) < 2 and not isinstance(config, PerturbedTargets):
        raise InputError(
            f"novel views between captured views need at least 2 captured views, got {len(T_world_captured)}: "
            "give more views, hold none out (--split none), or choose the targets perturbed or a file"
        )
    if isinstance(config, SpreadTargets):
        return _spread(config, T_world_captured, extent, generator)
    if isinstance(config, AroundTargets):
        return _around(config, T_world_captured, extent, generator)
    if isinstance(config, PathTargets):
        return path_poses(T_world_captured, config.num_views, extent=extent)
    if isinstance(config, OrbitTargets):
        if np.ptp(T_world_captured[:, :3, 3], axis=0).max() < MIN_ORBIT:
            raise InputError("all captured views stand at one place, no circle leads through it: choose other targets")
        return np.stack(orbit(list(T_world_captured), config.num_views))
    if isinstance(config, SpiralTargets):
        return _spiral(config, T_world_captured, scene)
    return _perturbed(config, T_world_captured, extent, generator)


def _from_file(config: FileTargets, scene: Scene | None) -> Float64[np.ndarray, "k 4 4"]:
    cameras = read_camera_file(config.path).cameras
    T_scene_colmap = np.eye(4) if scene is None else scene.T_scene_colmap
    return np.stack([transform_camera(T_scene_colmap, camera).T_world_cam for camera in cameras])


def _spiral(
    config: SpiralTargets, T_world_captured: Float64[np.ndarray, "n 4 4"], scene: Scene | None
) -> Float64[np.ndarray, "k 4 4"]:
    if scene is None or not len(scene.points):
        raise InputError("a spiral needs the depths of the scene's points, and there are none: choose other targets")
    p_world = scene.points.p_world.astype(np.float64)
    depths = [((p_world - T[:3, 3]) @ T[:3, 2]) for T in T_world_captured]
    near, far = np.percentile(np.concatenate([depth[depth > 0] for depth in depths] or [np.ones(1)]), [5, 90])
    # The spiral turns about the cameras' mean place, to which its own frame is moved.
    center = T_world_captured[:, :3, 3].mean(axis=0)
    shifted = T_world_captured.copy()
    shifted[:, :3, 3] -= center
    path = np.stack(spiral(list(shifted), config.num_views, near=float(near), far=float(far)))
    path[:, :3, 3] += center
    return path


def _perturbed(
    config: PerturbedTargets,
    T_world_captured: Float64[np.ndarray, "n 4 4"],
    extent: float,
    generator: np.random.Generator,
) -> Float64[np.ndarray, "k 4 4"]:
    targets = []
    for index in range(config.num_views):
        target = T_world_captured[index % len(T_world_captured)].copy()
        direction, axis = (vector / np.linalg.norm(vector) for vector in generator.normal(size=(2, 3)))
        target[:3, 3] += config.shift * extent * direction
        target[:3, :3] = target[:3, :3] @ _rotation_about(axis, np.deg2rad(config.turn_degrees))
        targets.append(target)
    return np.stack(targets)


def _rotation_about(axis: Float64[np.ndarray, " 3"], angle: float) -> Float64[np.ndarray, "3 3"]:
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


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


def _spread(
    config: SpreadTargets,
    T_world_captured: Float64[np.ndarray, "n 4 4"],
    extent: float,
    generator: np.random.Generator,
) -> Float64[np.ndarray, "k 4 4"]:
    """Poses around the captured ones and between neighbors, each moved and turned at random."""
    between = [
        interpolated_pose(T_world_captured[one], T_world_captured[other], fraction)
        for one, other in neighboring_pairs(T_world_captured, config, extent=extent)
        for fraction in BETWEEN
    ]
    order = generator.permutation(len(between))
    targets = []
    for index in range(config.num_views):
        if index % 3 == 0 or not between:
            target = T_world_captured[generator.integers(len(T_world_captured))].copy()
        else:
            target = between[order[index % len(between)]].copy()
        target[:3, 3] += generator.normal(size=3) * config.shift * extent
        turn = generator.normal(size=3) * np.deg2rad(config.turn_degrees)
        angle = float(np.linalg.norm(turn))
        if angle > 0:
            target[:3, :3] = target[:3, :3] @ _rotation_about(turn / angle, angle)
        targets.append(target)
    return np.stack(targets)


def neighboring_pairs(
    T_world_captured: Float64[np.ndarray, "n 4 4"], config: SpreadTargets, *, extent: float
) -> list[tuple[int, int]]:
    """Pairs of captured views that are near each other and look the same way, sorted."""
    distances = pose_distances(T_world_captured, T_world_captured, extent=extent)
    forward = T_world_captured[:, :3, 2]
    far = forward @ forward.T < np.cos(np.deg2rad(config.max_angle_degrees))
    distances = np.where(far | np.eye(len(distances), dtype=bool), np.inf, distances)
    pairs = set()
    for one, row in enumerate(distances):
        for other in np.argsort(row, kind="stable")[: config.num_neighbors]:
            if np.isfinite(row[other]):
                pairs.add((min(one, int(other)), max(one, int(other))))
    return sorted(pairs)


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
