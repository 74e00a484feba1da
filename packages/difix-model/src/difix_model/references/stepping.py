"""How novel poses move toward their targets, a limited distance per round."""

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from difix_model.references.poses import nearest_poses, pose_distances, rotation_angles

SAME_PLACE = 1e-6
"""Distance of two camera centers, in scene extents, below which only their rotations differ."""


def slerp(
    R_world_a: Float64[np.ndarray, "3 3"], R_world_b: Float64[np.ndarray, "3 3"], fraction: float
) -> Float64[np.ndarray, "3 3"]:
    """The rotation at a fraction of the shorter way from one rotation to another; 0 and 1 give the ends."""
    R_a_b = Rotation.from_matrix(R_world_a.T @ R_world_b)
    return R_world_a @ Rotation.from_rotvec(fraction * R_a_b.as_rotvec()).as_matrix()


def interpolated_pose(
    T_world_a: Float64[np.ndarray, "4 4"], T_world_b: Float64[np.ndarray, "4 4"], fraction: float
) -> Float64[np.ndarray, "4 4"]:
    """The pose at a fraction of the way from a to b: straight line of the centers, slerp of the rotations."""
    T_world_cam = np.eye(4)
    T_world_cam[:3, :3] = slerp(T_world_a[:3, :3], T_world_b[:3, :3], fraction)
    T_world_cam[:3, 3] = (1 - fraction) * T_world_a[:3, 3] + fraction * T_world_b[:3, 3]
    return T_world_cam


def stepped_poses(
    T_world_current: Float64[np.ndarray, "n 4 4"],
    T_world_target: Float64[np.ndarray, "m 4 4"],
    distance: float,
    *,
    extent: float = 1.0,
    rotation_weight: float = 1.0,
    max_turn_degrees: float | None = None,
) -> Float64[np.ndarray, "m 4 4"]:
    """One step toward every target, each from the current pose that is nearest to it.

    A target closer than `distance` (by `pose_distances`) is taken as it is. Otherwise the center moves `distance`
    extents along the straight line, and snaps to the target's when what is left is no longer than one step; the
    rotation turns by the same fraction of the way. Two poses at one place differ by rotation only: the target's is
    taken at once. So poses walk from the captured views to the targets and then stay there.

    Args:
        T_world_current: Poses reached so far; captured poses at first.
        T_world_target: Where to go; one pose per target comes back.
        distance: Length of a step, in extents. The released code takes 0.5 world units whatever the scene's scale.
        extent: The scene's extent in world units; 1 gives the released code's numbers.
        rotation_weight: Extents that count as much as one radian.
        max_turn_degrees: A step turns no farther than this; None, as in the released code: however far.

    Raises:
        ValueError: The distance or the extent is not positive.
    """
    if distance <= 0 or extent <= 0:
        raise ValueError(f"distance and extent must be positive, got {distance} and {extent}")
    nearest = nearest_poses(T_world_target, T_world_current, extent=extent, rotation_weight=rotation_weight)
    steps = [
        _one_step(T_world_current[current], target, distance, extent, rotation_weight)
        for current, target in zip(nearest, T_world_target, strict=True)
    ]
    if not steps:
        return np.empty((0, 4, 4))
    stepped = np.stack(steps)
    if max_turn_degrees is not None:
        for T_world_cam, start, target in zip(stepped, T_world_current[nearest], T_world_target, strict=True):
            _limit_turn(T_world_cam, start, target, np.deg2rad(max_turn_degrees))
    return stepped


def _limit_turn(
    T_world_cam: Float64[np.ndarray, "4 4"],
    T_world_start: Float64[np.ndarray, "4 4"],
    T_world_target: Float64[np.ndarray, "4 4"],
    max_turn: float,
) -> None:
    """Turn a stepped pose back, in place, to where it is no more than so many radians from its start."""
    turn, whole = (
        rotation_angles(T_world_start[None, :3, :3], T[None, :3, :3]).item() for T in (T_world_cam, T_world_target)
    )
    if turn > max_turn:
        T_world_cam[:3, :3] = slerp(T_world_start[:3, :3], T_world_target[:3, :3], max_turn / whole)


def progress_to_targets(
    T_world_captured: Float64[np.ndarray, "n 4 4"],
    T_world_novel: Float64[np.ndarray, "m 4 4"],
    T_world_target: Float64[np.ndarray, "k 4 4"],
    *,
    extent: float = 1.0,
    rotation_weight: float = 1.0,
) -> float:
    """How far novel views have come from the captured views to their targets, in [0, 1], on average over the targets.

    A target's way is its distance from the nearest captured view; what is left is that from the nearest novel view.
    """
    weights = {"extent": extent, "rotation_weight": rotation_weight}
    whole = pose_distances(T_world_target, T_world_captured, **weights).min(axis=1)
    left = pose_distances(T_world_target, T_world_novel, **weights).min(axis=1)
    return float(np.mean(np.where(whole > 0, 1 - np.minimum(left / np.maximum(whole, 1e-12), 1), 1.0)))


def _one_step(
    T_world_current: Float64[np.ndarray, "4 4"],
    T_world_target: Float64[np.ndarray, "4 4"],
    distance: float,
    extent: float,
    rotation_weight: float,
) -> Float64[np.ndarray, "4 4"]:
    left = pose_distances(T_world_current[None], T_world_target[None], extent=extent, rotation_weight=rotation_weight)
    if left.item() <= distance:
        return T_world_target.copy()
    start, goal = T_world_current[:3, 3], T_world_target[:3, 3]
    length = float(np.linalg.norm(goal - start)) / extent
    if length <= SAME_PLACE:
        return T_world_target.copy()
    fraction = min(distance / length, 1.0)
    T_world_cam = T_world_target.copy()
    T_world_cam[:3, :3] = slerp(T_world_current[:3, :3], T_world_target[:3, :3], fraction)
    # Within one step of the goal (or past it) the center is the goal, so that no remainder is walked in tiny steps.
    center = start + distance * extent * (goal - start) / (length * extent)
    if np.dot(goal - center, goal - start) > 0 and np.linalg.norm(goal - center) > distance * extent:
        T_world_cam[:3, 3] = center
    return T_world_cam
