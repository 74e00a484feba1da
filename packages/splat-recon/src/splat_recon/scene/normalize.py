"""A frame for training: cameras about one unit from the origin, up along an axis, points along their main axes.

The construction is gsplat's (examples/datasets/normalize.py), seen from the middle of the cameras in place of the
world's origin: a similarity from the cameras, then a rigid motion from the principal axes of the points. Learning rates
and thresholds of the released schedule assume such a frame.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from splat_recon.scene.scene import Points, Scene
from splat_render.poses import inverse, rigid, similarity, transform_points, transform_pose

MIN_POINTS_FOR_AXES = 4
"""With fewer points than this the principal axes mean nothing and the points are left as the cameras put them."""

REACH = 100
"""How many times as far away as nine tenths of all points and cameras a point may be and still belong to the scene.
Triangulation has no point so far: rays that are nearly parallel are refused."""

AXES_REACH = 3
"""Points this many times as far from the middle as nine tenths of them have no say in the principal axes."""

CENTER_STEP, POINT_STEP = 2.0**-21, 2.0**-16
"""What cameras' centers and points are rounded to, as fractions of the cameras' distance from their middle: 1/2000 of a
pixel at a focal length of 1000, and far below what structure from motion knows."""

WEISZFELD_STEPS = 50
"""Steps towards a geometric median: each turns and moves along with the points, so that any number will do."""

_log = logging.getLogger(__name__)


def normalized(scene: Scene) -> Scene:
    """The scene in a normalized frame, with `T_scene_colmap` saying how to come back.

    Where the scene lies in its world makes no difference: everything is computed in float64 from the middle of the
    cameras, and digits that large coordinates have lost are given up near the origin as well (`CENTER_STEP`,
    `POINT_STEP`), so that trainings are the same to the bit but for rare chances. Points far beyond all others
    (`REACH`) are left out, and a warning counts them.
    """
    T_local_world = rigid(np.eye(3), -_middle(scene))
    centers = np.stack([view.camera.center_world for view in scene.views]) + T_local_world[:3, 3]
    size = _power_of_two(float(np.median(np.linalg.norm(centers, axis=1))))
    poses = [transform_pose(T_local_world, view.camera.T_world_cam) for view in scene.views]
    for pose in poses:
        pose[:3, 3] = _on_grid(pose[:3, 3], CENTER_STEP * size)
    T_upright_local = upright_unit(poses)
    points = _within_reach(scene)
    p_local = _on_grid(points.p_world + T_local_world[:3, 3], POINT_STEP * size)
    p_upright = transform_points(T_upright_local, p_local)
    T_scene_local = principal_axes(_without_far_ones(p_upright)) @ T_upright_local
    # The cameras and points go by the local frame, which is near them: no digits cancel.
    views = tuple(
        replace(view, camera=view.camera.with_pose(transform_pose(T_scene_local, T_local_cam)))
        for view, T_local_cam in zip(scene.views, poses, strict=True)
    )
    return replace(
        scene,
        views=views,
        points=replace(points, p_world=transform_points(T_scene_local, p_local)),
        T_scene_colmap=T_scene_local @ T_local_world @ scene.T_scene_colmap,
    )


def _power_of_two(length: float) -> float:
    """The largest power of two that is not above a length; 0 of 0."""
    return float(2.0 ** np.floor(np.log2(length))) if length > 0 else 0.0


def _on_grid(p: Float64[np.ndarray, "*n 3"], step: float) -> Float64[np.ndarray, "*n 3"]:
    """Coordinates rounded to multiples of a step; as they are for a step of 0."""
    return np.round(p / step) * step if step > 0 else p


def gsplat_frame(scene: Scene) -> Float64[np.ndarray, "4 4"]:
    """The similarity from a normalized scene to the frame that gsplat's trainer normalizes the same photos to.

    gsplat looks from the origin of COLMAP's world, which makes another frame where the cameras are far from it.
    """
    T_colmap_scene = inverse(scene.T_scene_colmap)
    poses = [transform_pose(T_colmap_scene, view.camera.T_world_cam) for view in scene.views]
    T_upright_colmap = similarity_from_cameras(poses)
    p_upright = transform_points(T_upright_colmap @ T_colmap_scene, scene.points.p_world)
    return principal_axes(p_upright) @ T_upright_colmap @ T_colmap_scene


def _middle(scene: Scene) -> Float64[np.ndarray, " 3"]:
    """The middle of the cameras' centers."""
    return geometric_median(np.stack([view.camera.center_world for view in scene.views]))


def _within_reach(scene: Scene) -> Points:
    """The points without those that are `REACH` times as far away as nine tenths of the points and of the cameras."""
    if not len(scene.points):
        return scene.points
    middle = _middle(scene)
    distances = np.linalg.norm(scene.points.p_world - middle, axis=1)
    to_cameras = np.linalg.norm([view.camera.center_world - middle for view in scene.views], axis=1)
    kept = distances <= REACH * max(np.quantile(distances, 0.9), np.quantile(to_cameras, 0.9))
    num_far = int((~kept).sum())
    if not num_far:
        return scene.points
    _log.warning("%d of %d points lie far beyond all others: they are left out", num_far, len(kept))
    return scene.points.selected(kept)


def _without_far_ones(p: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "m 3"]:
    """Points without the few that would decide alone where the principal axes lie."""
    if not len(p):
        return p
    distances = np.linalg.norm(p - np.median(p, axis=0), axis=1)
    return p[distances <= AXES_REACH * np.quantile(distances, 0.9)]


def similarity_from_cameras(poses: Sequence[Float64[np.ndarray, "4 4"]]) -> Float64[np.ndarray, "4 4"]:
    """The similarity that turns the cameras upright, centers what they look at and scales their distance to 1.

    Upright: the mean of the cameras' up directions becomes -y (OpenCV's up). Center: per axis, the median over the
    cameras of the point on the optical axis nearest to the origin. Scale: the median distance of the cameras from that
    center becomes 1; cameras that all stand in the center keep their scale.

    Args:
        poses: Camera-to-world matrices, at least one.
    """
    rotation = _upright(poses)
    T_upright_cam = rigid(rotation, np.zeros(3)) @ np.stack(list(poses))
    return _scaled(rotation, T_upright_cam[:, :3, 3], np.median(_nearest_to_origin(T_upright_cam), axis=0))


def upright_unit(poses: Sequence[Float64[np.ndarray, "4 4"]]) -> Float64[np.ndarray, "4 4"]:
    """`similarity_from_cameras`, but for the median of points being one that turns along with the frame.

    Args:
        poses: Camera-to-world matrices, at least one, in a frame whose origin is near the cameras.
    """
    rotation = _upright(poses)
    T_upright_cam = rigid(rotation, np.zeros(3)) @ np.stack(list(poses))
    return _scaled(rotation, T_upright_cam[:, :3, 3], geometric_median(_nearest_to_origin(T_upright_cam)))


def geometric_median(p: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " 3"]:
    """About the point with the least sum of distances to all, by Weiszfeld's iteration; stray points hardly count."""
    center = p.mean(axis=0)
    for _ in range(WEISZFELD_STEPS):
        offsets = p - center
        distances = np.linalg.norm(offsets, axis=1)
        if not distances.max():
            return center
        weights = distances.max() / np.maximum(distances, 1e-6 * distances.max())
        center = center + (offsets * weights[:, None]).sum(axis=0) / weights.sum()
    return center


def _upright(poses: Sequence[Float64[np.ndarray, "4 4"]]) -> Float64[np.ndarray, "3 3"]:
    """The rotation that takes the cameras' mean up direction to -y; none where they cancel out, which says nothing."""
    up_world = -np.stack(list(poses))[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(up_world)
    return _rotation_between(up_world / length, np.array([0.0, -1.0, 0.0])) if length > 1e-9 else np.eye(3)


def _nearest_to_origin(T_world_cam: Float64[np.ndarray, "n 4 4"]) -> Float64[np.ndarray, "n 3"]:
    """The point of each optical axis that is nearest to the origin."""
    forward, centers = T_world_cam[:, :3, 2], T_world_cam[:, :3, 3]
    return centers - (forward * centers).sum(axis=1, keepdims=True) * forward


def _scaled(
    rotation: Float64[np.ndarray, "3 3"], centers: Float64[np.ndarray, "n 3"], focus: Float64[np.ndarray, " 3"]
) -> Float64[np.ndarray, "4 4"]:
    """The similarity that rotates, puts the focus at the origin and the cameras at a median distance of 1 from it."""
    distance = float(np.median(np.linalg.norm(centers - focus, axis=1)))
    if distance < 1e-9:
        _log.warning("all cameras stand at the center of the scene: its scale is kept")
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
