"""How far poses are from each other, and which captured views are nearest: the references that a fixer looks at.

Poses are 4x4 camera-to-world matrices of any one axis convention; numpy only.
"""

import numpy as np
from jaxtyping import Float64, Int64


def rotation_angles(
    R_world_a: Float64[np.ndarray, "n 3 3"], R_world_b: Float64[np.ndarray, "m 3 3"]
) -> Float64[np.ndarray, "n m"]:
    """Angle between every two rotations, in radians, in [0, pi].

    Equal to ``arccos(2 (q_a . q_b)^2 - 1)``, written with sine and cosine of half the angle: an arccos of a number
    near 1 loses half of its digits, and gives NaN when rounding lifts the number above 1.
    """
    difference = R_world_a[:, None] - R_world_b[None]
    sin_half = np.linalg.norm(difference, axis=(-2, -1)) / (2 * np.sqrt(2))
    trace = np.einsum("nij,mij->nm", R_world_a, R_world_b)
    cos_half = np.sqrt(np.maximum(1 + trace, 0)) / 2
    return 2 * np.arctan2(sin_half, cos_half)


def pose_distances(
    T_world_a: Float64[np.ndarray, "n 4 4"],
    T_world_b: Float64[np.ndarray, "m 4 4"],
    *,
    extent: float = 1.0,
    translation_weight: float = 1.0,
    rotation_weight: float = 1.0,
) -> Float64[np.ndarray, "n m"]:
    """How far every pose is from every other: distance of the centers plus angle between the rotations.

    Args:
        extent: Length that counts as one radian, in world units: the scene's extent makes the distance independent of
            the scale of the world. The released code uses 1.
        rotation_weight: Factor of the angle in radians.
    """
    offsets = T_world_a[:, None, :3, 3] - T_world_b[None, :, :3, 3]
    angles = rotation_angles(T_world_a[:, :3, :3], T_world_b[:, :3, :3])
    return translation_weight / extent * np.linalg.norm(offsets, axis=-1) + rotation_weight * angles


def nearest_poses(
    T_world_cam: Float64[np.ndarray, "n 4 4"],
    T_world_candidate: Float64[np.ndarray, "m 4 4"],
    **weights: float,
) -> Int64[np.ndarray, " n"]:
    """For every pose the index of the nearest candidate, by `pose_distances`; the first of equally near ones.

    Args:
        weights: Of `pose_distances`.

    Raises:
        ValueError: There is no candidate.
    """
    if not len(T_world_candidate):
        raise ValueError("expected at least one candidate pose, got none")
    return ranked_poses(T_world_cam, T_world_candidate, 1, **weights)[:, 0]


def nearest_distances(
    T_world_cam: Float64[np.ndarray, "n 4 4"],
    T_world_candidate: Float64[np.ndarray, "m 4 4"],
    **weights: float,
) -> list[float]:
    """How far every pose is from the candidate nearest to it, by `pose_distances` with these weights."""
    return pose_distances(T_world_cam, T_world_candidate, **weights).min(axis=1).tolist()


def ranked_poses(
    T_world_cam: Float64[np.ndarray, "n 4 4"],
    T_world_candidate: Float64[np.ndarray, "m 4 4"],
    num: int,
    **weights: float,
) -> Int64[np.ndarray, "n k"]:
    """For every pose the indices of so many candidates (all, if fewer), the nearest first by `pose_distances`."""
    distances = pose_distances(T_world_cam, T_world_candidate, **weights)
    return np.argsort(distances, axis=1, kind="stable")[:, :num].astype(np.int64)
