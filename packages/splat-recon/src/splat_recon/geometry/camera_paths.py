"""From a few captured cameras to the cameras of a film."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from output_files import check_range
from splat_recon.geometry.trajectories import ellipse, interpolated, orbit, spiral
from splat_render.cameras import Camera

Kind = Literal["interpolated", "ellipse", "spiral", "orbit"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraPathConfig:
    """Where a film goes."""

    kind: Kind = "interpolated"
    """Through all captured cameras in the order of their names, around the scene on an ellipse (for captures all
    around), on a spiral in front of it (for forward-facing ones), or on a circle about what the cameras look at."""

    num_frames: int | None = None
    """Frames of the film; None: `frames_per_view` from each captured camera to the next, 240 for the other paths."""

    frames_per_view: int = 12
    """Frames from one captured camera to the next, where `num_frames` does not say."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "num_frames", "frames_per_view")


NUM_FRAMES = 240
"""Frames of a film on an ellipse, a spiral or a circle: ten seconds."""


def camera_path(cameras: Sequence[Camera], config: CameraPathConfig, *, near: float, far: float) -> list[Camera]:
    """The cameras of a film, with the intrinsics and size of the first captured one.

    Args:
        cameras: The captured ones, in a normalized frame.
        near: Depth of the nearest things, for the spiral.
        far: Depth of the farthest things, for the spiral.

    Raises:
        ValueError: There are fewer than two cameras.
    """
    poses = [camera.T_world_cam for camera in cameras]
    if len(poses) < 2:
        raise ValueError(f"a path needs two cameras, got {len(poses)}")
    num_frames = config.num_frames or NUM_FRAMES
    if config.kind == "interpolated":
        path = _through(poses, config)
    elif config.kind == "ellipse":
        path = ellipse(poses, num_frames)
    elif config.kind == "spiral":
        path = _spiral(poses, num_frames, near, far)
    else:
        path = orbit(poses, num_frames)
    return [cameras[0].with_pose(pose) for pose in path]


def _through(poses: Sequence[np.ndarray], config: CameraPathConfig) -> list[np.ndarray]:
    if config.num_frames is None:
        return interpolated(poses, config.frames_per_view)
    # A fine path, of which as many poses are taken as are wanted, evenly.
    fine = interpolated(poses, -(-8 * config.num_frames // (len(poses) - 1)))
    return [fine[round(index)] for index in np.linspace(0, len(fine) - 1, config.num_frames)]


def _spiral(poses: Sequence[np.ndarray], num_frames: int, near: float, far: float) -> list[np.ndarray]:
    """The spiral turns about the cameras' mean place, to which its own frame is moved."""
    shift = np.mean([pose[:3, 3] for pose in poses], axis=0)
    moved = [_moved(pose, -shift) for pose in poses]
    return [_moved(pose, shift) for pose in spiral(moved, num_frames, near=near, far=far)]


def _moved(pose: np.ndarray, shift: np.ndarray) -> np.ndarray:
    moved = pose.copy()
    moved[:3, 3] += shift
    return moved
