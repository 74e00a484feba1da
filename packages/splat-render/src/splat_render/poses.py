"""Rotations, rigid motions and similarities as float64 arrays.

Quaternions are unit, in the order w, x, y, z. Motions are 4x4 matrices `T_a_b` that map coordinates of frame b to
frame a.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64

from splat_render.cameras import Camera

SLERP_LINEAR_BELOW_RAD = 1e-6
"""Angle between two quaternions (as 4-vectors) below which slerp interpolates linearly."""


def matrix_from_quat_wxyz(quats_wxyz: Float[np.ndarray, "*b 4"]) -> Float64[np.ndarray, "*b 3 3"]:
    """Rotation matrices of quaternions, which are normalized first and must not be zero."""
    quats = np.asarray(quats_wxyz, dtype=np.float64)
    w, x, y, z = np.moveaxis(quats / np.linalg.norm(quats, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quat_wxyz_from_matrix(rotation: Float[np.ndarray, "*b 3 3"]) -> Float64[np.ndarray, "*b 4"]:
    """Unit quaternions of rotation matrices, with w >= 0.

    Of the four expressions for a quaternion (one divides by each of its entries) the one that divides by the
    largest entry is taken, so that no rotation is badly conditioned.
    """
    m = np.asarray(rotation, dtype=np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    # Row k is 4 q_k (w, x, y, z).
    rows = [
        [1 + xx + yy + zz, wx, wy, wz],
        [wx, 1 + xx - yy - zz, xy, xz],
        [wy, xy, 1 - xx + yy - zz, yz],
        [wz, xz, yz, 1 - xx - yy + zz],
    ]
    candidates = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    largest = np.argmax(np.diagonal(candidates, axis1=-2, axis2=-1), axis=-1)
    quats = np.take_along_axis(candidates, largest[..., None, None], axis=-2)[..., 0, :]
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    return np.where(quats[..., :1] < 0, -quats, quats)


def slerp(
    rotation_from: Float[np.ndarray, "3 3"], rotation_to: Float[np.ndarray, "3 3"], t: float
) -> Float64[np.ndarray, "3 3"]:
    """The rotation at fraction t of the shorter way from one rotation to another; t = 0 and 1 give the ends."""
    quat_from, quat_to = quat_wxyz_from_matrix(rotation_from), quat_wxyz_from_matrix(rotation_to)
    dot = float(quat_from @ quat_to)
    if dot < 0:
        quat_to, dot = -quat_to, -dot
    angle = np.arccos(min(dot, 1.0))
    if angle < SLERP_LINEAR_BELOW_RAD:
        quat = (1 - t) * quat_from + t * quat_to
    else:
        quat = (np.sin((1 - t) * angle) * quat_from + np.sin(t * angle) * quat_to) / np.sin(angle)
    return matrix_from_quat_wxyz(quat)


def rotation_angle(
    rotation_a: Float[np.ndarray, "*b 3 3"], rotation_b: Float[np.ndarray, "*b 3 3"]
) -> Float64[np.ndarray, "*b"]:
    """Angle in radians, in [0, pi], of the rotation that takes one to the other.

    It is computed from sine and cosine of the half angle: exact to rounding near 0 and pi, and never NaN, where an
    arccos of a dot product is neither.
    """
    quats_a, quats_b = quat_wxyz_from_matrix(rotation_a), quat_wxyz_from_matrix(rotation_b)
    # |a - b| and |a + b| are 2 sin and 2 cos of a quarter of the angle, up to the sign of a quaternion.
    difference = np.linalg.norm(quats_a - quats_b, axis=-1)
    total = np.linalg.norm(quats_a + quats_b, axis=-1)
    return np.asarray(4 * np.arctan2(np.minimum(difference, total), np.maximum(difference, total)))


def rigid(rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, " 3"]) -> Float64[np.ndarray, "4 4"]:
    """The motion p -> rotation p + translation as a 4x4 matrix."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def similarity(
    scale: float, rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, " 3"]
) -> Float64[np.ndarray, "4 4"]:
    """The similarity p -> scale rotation p + translation as a 4x4 matrix."""
    return rigid(scale * np.asarray(rotation, dtype=np.float64), translation)


def decompose_similarity(
    T_a_b: Float[np.ndarray, "4 4"],
) -> tuple[float, Float64[np.ndarray, "3 3"], Float64[np.ndarray, " 3"]]:
    """Scale, rotation and translation of a similarity.

    Raises:
        ValueError: The matrix is not a similarity (it shears, mirrors or has a last row other than 0 0 0 1).
    """
    T = np.asarray(T_a_b, dtype=np.float64)
    determinant = np.linalg.det(T[:3, :3]) if np.isfinite(T).all() else 0.0
    if determinant <= 0 or not np.array_equal(T[3], (0, 0, 0, 1)):
        raise ValueError("expected a similarity: finite, not mirrored, last row 0 0 0 1")
    scale = float(np.cbrt(determinant))
    rotation = T[:3, :3] / scale
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4:
        raise ValueError("expected a similarity: one scale for all directions")
    return scale, rotation, T[:3, 3].copy()


def inverse(T_a_b: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """`T_b_a` of a rigid motion or a similarity.

    Raises:
        ValueError: The matrix is not a similarity.
    """
    scale, rotation, translation = decompose_similarity(T_a_b)
    return similarity(1 / scale, rotation.T, -(rotation.T @ translation) / scale)


def transform_points(T_a_b: Float[np.ndarray, "4 4"], p_b: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    """Points of frame b in frame a."""
    return np.asarray(p_b, dtype=np.float64) @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def transform_pose(T_a_b: Float[np.ndarray, "4 4"], T_b_cam: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """A camera's pose in frame a, given in frame b, for a similarity between the frames.

    The scale moves the camera's center only: the result is a rigid motion again.
    """
    scale, rotation, translation = decompose_similarity(T_a_b)
    return rigid(rotation @ T_b_cam[:3, :3], scale * (rotation @ T_b_cam[:3, 3]) + translation)


def transform_camera(T_a_b: Float[np.ndarray, "4 4"], camera: Camera) -> Camera:
    """A camera whose world was frame b, in the world of frame a: the same picture of the moved scene."""
    return replace(camera, T_world_cam=transform_pose(T_a_b, camera.T_world_cam))
