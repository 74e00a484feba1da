"""A frame for training: cameras about one unit from the origin, up along an axis, points along their main axes.

The construction is gsplat's (examples/datasets/normalize.py): a similarity from the cameras, then a rigid motion from
the principal axes of the points. Learning rates and thresholds of the released schedule assume such a frame.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from splat_recon.geometry.poses import rigid, similarity, transform_camera, transform_points
from splat_recon.scene.scene import Scene

MIN_POINTS_FOR_AXES = 4
"""With fewer points than this the principal axes mean nothing and the points are left as the cameras put them."""

_log = logging.getLogger(__name__)


def normalized(scene: Scene) -> Scene:
    """The scene in a normalized frame, with `T_scene_colmap` saying how to come back."""
    poses = [view.camera.T_world_cam for view in scene.views]
    T_upright_world = similarity_from_cameras(poses)
    p_upright = transform_points(T_upright_world, scene.points.p_world)
    T_scene_world = principal_axes(p_upright) @ T_upright_world
    views = tuple(replace(view, camera=transform_camera(T_scene_world, view.camera)) for view in scene.views)
    p_scene = transform_points(T_scene_world, scene.points.p_world).astype(np.float32)
    return replace(
        scene,
        views=views,
        points=replace(scene.points, p_world=p_scene),
        T_scene_colmap=T_scene_world @ scene.T_scene_colmap,
    )


def similarity_from_cameras(poses: Sequence[Float64[np.ndarray, "4 4"]]) -> Float64[np.ndarray, "4 4"]:
    """The similarity that turns the cameras upright, centres what they look at and scales their distance to 1.

    Upright: the mean of the cameras' up directions becomes -y (OpenCV's up). Centre: per axis, the median over the
    cameras of the point on the optical axis nearest to the origin. Scale: the median distance of the cameras from that
    centre becomes 1; cameras that all stand in the centre keep their scale.

    Args:
        poses: Camera-to-world matrices, at least one.
    """
    T_world_cam = np.stack(list(poses))
    up_world = -T_world_cam[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(up_world)
    # Up directions that cancel out say nothing: the frame keeps its orientation.
    rotation = _rotation_between(up_world / length, np.array([0.0, -1.0, 0.0])) if length > 1e-9 else np.eye(3)
    forward = T_world_cam[:, :3, 2] @ rotation.T
    centers = T_world_cam[:, :3, 3] @ rotation.T
    along = -(forward * centers).sum(axis=1, keepdims=True)
    focus = np.median(centers + along * forward, axis=0)
    distance = float(np.median(np.linalg.norm(centers - focus, axis=1)))
    if distance < 1e-9:
        _log.warning("all cameras stand at the centre of the scene: its scale is kept")
        distance = 1.0
    return similarity(1 / distance, rotation, -focus / distance)


def _rotation_between(direction_from: np.ndarray, direction_to: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes one unit vector to another; half a turn about x where they are opposite.

    gsplat mirrors the scene in the opposite case; a rotation keeps it as it is.
    """
    cosine = float(direction_from @ direction_to)
    if cosine <= -1 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    x, y, z = np.cross(direction_from, direction_to)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def principal_axes(p_world: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "4 4"]:
    """The rigid motion that puts the points' median at the origin and their principal axes on x, y, z.

    x is the direction of largest spread, z that of the smallest. The signs of the axes are the eigenvectors' own, the
    first one turned where the frame would be left-handed.
    """
    if len(p_world) < MIN_POINTS_FOR_AXES:
        return np.eye(4)
    center = np.median(p_world, axis=0)
    _, vectors = np.linalg.eigh(np.cov(p_world - center, rowvar=False))
    axes = vectors[:, ::-1].copy()
    if np.linalg.det(axes) < 0:
        axes[:, 0] *= -1
    return rigid(axes.T, -axes.T @ center)
