"""Camera paths for videos: through given poses, around them on an ellipse, or on a spiral in front of a scene.

All functions take and give camera-to-world poses with OpenCV axes. The ellipse and the spiral take the places of
gsplat's examples (which come from multinerf). They differ in where they look: gsplat's ellipse about y looks away from
the scene, and its spiral turns about a point behind the cameras; ours look at the scene, and at a point in front.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64

from splat_render.poses import rigid, slerp

Poses = Sequence[Float64[np.ndarray, "4 4"]]


def interpolated(poses: Poses, num_per_segment: int, *, closed: bool = False) -> list[Float64[np.ndarray, "4 4"]]:
    """A smooth path through all poses.

    Positions follow a Catmull-Rom spline, rotations turn evenly from pose to pose.

    Args:
        poses: At least two.
        num_per_segment: Poses from one given pose up to, but without, the next.
        closed: The path returns from the last pose to the first.

    Returns:
        ``num_per_segment`` poses per segment; an open path ends with the last given pose, once.

    Raises:
        ValueError: There are fewer than two poses, or no pose per segment.
    """
    if len(poses) < 2 or num_per_segment < 1:
        raise ValueError(
            f"expected at least two poses and one per segment, got {len(poses)} poses and {num_per_segment}"
        )
    around = [*poses, poses[0]] if closed else list(poses)
    centers = np.stack([pose[:3, 3] for pose in around])
    if closed:
        padded = np.concatenate([centers[-2:-1], centers, centers[1:2]])
    else:
        # Mirrored neighbors make the path start and end straight.
        padded = np.concatenate([2 * centers[:1] - centers[1:2], centers, 2 * centers[-1:] - centers[-2:-1]])
    path = []
    for index, (pose, following) in enumerate(itertools.pairwise(around)):
        before, start, end, after = padded[index : index + 4]
        for step in range(num_per_segment):
            t = step / num_per_segment
            center = start + 0.5 * t * (
                (end - before)
                + t * (2 * before - 5 * start + 4 * end - after)
                + t * t * (3 * (start - end) + after - before)
            )
            path.append(rigid(slerp(pose[:3, :3], following[:3, :3], t), center))
    if not closed:
        path.append(np.array(around[-1], dtype=np.float64))
    return path


def ellipse(
    poses: Poses,
    num_frames: int,
    *,
    axis: Literal["z", "y"] = "z",
    height: float | None = None,
    variation: float = 0.0,
    phase: float = 0.0,
) -> list[Float64[np.ndarray, "4 4"]]:
    """One round on an ellipse about an axis of the scene, looking at the point that the given cameras look at.

    Args:
        poses: The captured cameras, in a normalized frame (its z or y axis stands upright).
        num_frames: Poses on the round, evenly spaced in the ellipse's parameter.
        height: Coordinate of the path along that axis. None: the mean height of the cameras.
        variation: How much of the cameras' own range of heights the path goes up and down, in addition.
        phase: Where on the round the path is highest, in rounds.

    Raises:
        ValueError: There are fewer than two poses, or no frames.
    """
    if len(poses) < 2 or num_frames < 1:
        raise ValueError(f"expected at least two poses and one frame, got {len(poses)} poses, {num_frames} frames")
    T_world_cam = np.stack(list(poses))
    centers = T_world_cam[:, :3, 3]
    upright = {"y": 1, "z": 2}[axis]
    if height is None:
        height = float(centers[:, upright].mean())
    focus = focus_point(poses)
    middle = focus.copy()
    middle[upright] = height
    radii = np.percentile(np.abs(centers - middle), 90, axis=0)
    lowest, highest = np.percentile(centers[:, upright], [10, 90])
    down = _nearest_axis(T_world_cam[:, :3, 1].mean(axis=0))
    path = []
    for angle in 2 * np.pi * np.arange(num_frames) / num_frames:
        first, second = [index for index in range(3) if index != upright]
        center = middle.copy()
        center[first] += radii[first] * np.cos(angle)
        center[second] += radii[second] * np.sin(angle)
        rise = 0.5 * (1 + np.cos(angle + 2 * np.pi * phase))
        center[upright] += variation * (lowest + (highest - lowest) * rise)
        path.append(looking_along(focus - center, down, center))
    return path


def spiral(
    poses: Poses,
    num_frames: int,
    *,
    near: float,
    far: float,
    num_rounds: int = 2,
    radius_scale: float = 1.0,
    forward_rounds: float = 0.5,
    focus_fraction: float = 0.75,
) -> list[Float64[np.ndarray, "4 4"]]:
    """A spiral about the mean camera of a forward-facing capture, looking at a point in front of it.

    Args:
        poses: The captured cameras, near the origin of a normalized frame.
        near: Depth of the nearest things, in scene units.
        far: Depth of the farthest things.
        radius_scale: Size of the turns relative to the cameras' spread.
        focus_fraction: Where between near (0) and far (1), evenly in 1 / depth, the path looks.

    Raises:
        ValueError: There are no poses or frames, or not 0 < near <= far.
    """
    if not poses or num_frames < 1 or not 0 < near <= far:
        raise ValueError(f"expected poses, frames and 0 < near <= far, got {len(poses)}, {num_frames}, {near}, {far}")
    T_world_cam = np.stack(list(poses))
    focus_depth = 1 / ((1 - focus_fraction) / near + focus_fraction / far)
    radii = radius_scale * np.percentile(np.abs(T_world_cam[:, :3, 3]), 90, axis=0)
    T_world_mean = average_pose(poses)
    look_at = T_world_mean[:3, :3] @ np.array([0, 0, focus_depth]) + T_world_mean[:3, 3]
    path = []
    for angle in 2 * np.pi * num_rounds * np.arange(num_frames) / num_frames:
        offset = radii * [np.cos(angle), -np.sin(angle), -np.sin(forward_rounds * angle)]
        center = T_world_mean[:3, :3] @ offset + T_world_mean[:3, 3]
        path.append(looking_along(look_at - center, T_world_cam[:, :3, 1].mean(axis=0), center))
    return path


def orbit(poses: Poses, num_frames: int) -> list[Float64[np.ndarray, "4 4"]]:
    """One round on a circle, upright as the given cameras are, looking at the point that they look at.

    The circle stands about the mean vertical of the cameras, at their mean height and mean distance from that axis,
    and begins beside the first camera. Unlike the ellipse it needs no axis of the frame to be upright.

    Raises:
        ValueError: There are fewer than two poses, or no frames.
    """
    if len(poses) < 2 or num_frames < 1:
        raise ValueError(f"expected at least two poses and one frame, got {len(poses)} poses, {num_frames} frames")
    T_world_cam = np.stack(list(poses))
    focus = focus_point(poses)
    down = T_world_cam[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(down)
    # Cameras that were turned all ways have no vertical in common: the first one's serves.
    down = down / length if length > 1e-6 else T_world_cam[0, :3, 1]
    offsets = T_world_cam[:, :3, 3] - focus
    heights = offsets @ down
    flat = offsets - heights[:, None] * down
    radius = np.linalg.norm(flat, axis=1).mean()
    start = flat[0] if np.linalg.norm(flat[0]) > 1e-9 * max(radius, 1.0) else np.cross(down, T_world_cam[0, :3, 0])
    first = start / np.linalg.norm(start)
    second = np.cross(down, first)
    path = []
    for angle in 2 * np.pi * np.arange(num_frames) / num_frames:
        offset = heights.mean() * down + radius * (np.cos(angle) * first + np.sin(angle) * second)
        path.append(looking_along(-offset, down, focus + offset))
    return path


def looking_along(
    forward: Float64[np.ndarray, " 3"], down: Float64[np.ndarray, " 3"], center: Float64[np.ndarray, " 3"]
) -> Float64[np.ndarray, "4 4"]:
    """A camera at a place, looking in a direction, its image's vertical as near to `down` as that allows.

    Raises:
        ValueError: `forward` is zero or along `down`.
    """
    right = np.cross(down, forward)
    if np.linalg.norm(right) < 1e-12:
        raise ValueError("forward and down must be two different directions")
    z = forward / np.linalg.norm(forward)
    x = right / np.linalg.norm(right)
    return rigid(np.stack([x, np.cross(z, x), z], axis=1), center)


def average_pose(poses: Poses) -> Float64[np.ndarray, "4 4"]:
    """The camera in the middle of others: mean place, mean viewing direction, mean vertical."""
    T_world_cam = np.stack(list(poses))
    mean = T_world_cam[:, :3].mean(axis=0)
    return looking_along(mean[:, 2], mean[:, 1], mean[:, 3])


def focus_point(poses: Poses) -> Float64[np.ndarray, " 3"]:
    """The point nearest, in the least-squares sense, to all optical axes.

    Parallel axes have no such point; then it is one on their middle line.
    """
    T_world_cam = np.stack(list(poses))
    direction = T_world_cam[:, :3, 2]
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    right_side = (across @ T_world_cam[:, :3, 3, None]).mean(axis=0)[:, 0]
    return np.linalg.lstsq(across.mean(axis=0), right_side, rcond=1e-9)[0]


def _nearest_axis(direction: np.ndarray) -> np.ndarray:
    axis = int(np.argmax(np.abs(direction)))
    return np.eye(3)[axis] * (1.0 if direction[axis] >= 0 else -1.0)
