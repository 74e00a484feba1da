"""Cameras on an orbit around the origin. The world has y up; cameras have OpenCV's axes: x right, y down, z forward."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin

import numpy as np
from jaxtyping import Float

FOCAL = 1422.222 / 1024
"""Focal length of the canonical cameras over the image's side: a field of view of 39.6 degrees."""

RADIUS = 1.4
"""Distance of the canonical cameras from the origin."""


def orbit_pose(elevation_deg: float, azimuth_deg: float, radius: float = RADIUS) -> Float[np.ndarray, "4 4"]:
    """`T_world_cam` of a camera that looks at the origin from an orbit.

    Args:
        elevation_deg: Height over the horizon, positive upward, in (-90, 90).
        azimuth_deg: Turn about the up axis; at 0 the camera stands on the positive z axis, at 90 on positive x.
        radius: Distance from the origin.
    """
    elevation, azimuth = radians(elevation_deg), radians(azimuth_deg)
    toward_camera = np.array([cos(elevation) * sin(azimuth), sin(elevation), cos(elevation) * cos(azimuth)])
    right = np.array([cos(azimuth), 0.0, -sin(azimuth)])
    T_world_cam = np.eye(4)
    T_world_cam[:3, 0] = right
    T_world_cam[:3, 1] = np.cross(-toward_camera, right)
    T_world_cam[:3, 2] = -toward_camera
    T_world_cam[:3, 3] = radius * toward_camera
    return T_world_cam


def orbit_rig(
    elevation_deg: float, azimuths_deg: Sequence[float] = (0.0, 90.0, 180.0, 270.0), radius: float = RADIUS
) -> Float[np.ndarray, "v 4 4"]:
    """Poses at several azimuths and one elevation; the defaults are DiffSplat's four views."""
    return np.stack([orbit_pose(elevation_deg, azimuth, radius) for azimuth in azimuths_deg])


def intrinsics(size: int, focal: float = FOCAL) -> Float[np.ndarray, "3 3"]:
    """`K` in pixels of a square image, its principal point in the middle.

    Args:
        size: The image's side in pixels.
        focal: Focal length over the side.
    """
    return np.array([[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1.0]])
