"""A pinhole camera: pose, intrinsics and image size."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

MAX_ROTATION_ERROR = 1e-3
"""How far R R^T of a pose may be from the identity: float32 poses pass, scaled or mirrored ones do not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """A pinhole camera with OpenCV axes (x right, y down, z forward).

    Pixel (0, 0) is the top-left corner of the image: pixel centers are at +0.5. All arrays are float64 and are not
    to be written to.

    Raises:
        ValueError: A shape is wrong, a value is not finite, the pose is not a rigid motion, K is not of the form
            ``[[fx, s, cx], [0, fy, cy], [0, 0, 1]]`` with positive focal lengths, or the size is not positive.
    """

    T_world_cam: Float64[np.ndarray, "4 4"]
    """Camera to world."""

    K: Float64[np.ndarray, "3 3"]
    """Intrinsics in pixels."""

    width: int
    """Image width in pixels."""

    height: int
    """Image height in pixels."""

    def __post_init__(self) -> None:
        T_world_cam = np.array(self.T_world_cam, dtype=np.float64)
        K = np.array(self.K, dtype=np.float64)
        if T_world_cam.shape != (4, 4) or K.shape != (3, 3):
            raise ValueError(f"expected T_world_cam [4 4] and K [3 3], got {T_world_cam.shape} and {K.shape}")
        if not (np.isfinite(T_world_cam).all() and np.isfinite(K).all()):
            raise ValueError("T_world_cam and K must be finite")
        R = T_world_cam[:3, :3]
        rigid = np.abs(R @ R.T - np.eye(3)).max() <= MAX_ROTATION_ERROR and np.linalg.det(R) > 0
        if not rigid or not np.array_equal(T_world_cam[3], (0, 0, 0, 1)):
            raise ValueError("T_world_cam must be a rotation and a translation (no scale, no mirror), last row 0 0 0 1")
        if K[0, 0] <= 0 or K[1, 1] <= 0 or K[1, 0] != 0 or not np.array_equal(K[2], (0, 0, 1)):
            raise ValueError(f"K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0, got {K.tolist()}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"width and height must be at least 1, got {self.width}x{self.height}")
        object.__setattr__(self, "T_world_cam", T_world_cam)
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "height", int(self.height))

    @property
    def T_cam_world(self) -> Float64[np.ndarray, "4 4"]:
        """World to camera: COLMAP's ``cam_from_world``, gsplat's ``viewmats``."""
        T_cam_world = np.eye(4)
        R_cam_world = self.T_world_cam[:3, :3].T
        T_cam_world[:3, :3] = R_cam_world
        T_cam_world[:3, 3] = -R_cam_world @ self.T_world_cam[:3, 3]
        return T_cam_world

    @property
    def center_world(self) -> Float64[np.ndarray, " 3"]:
        """Where the camera stands."""
        return self.T_world_cam[:3, 3].copy()

    def resized(self, width: int, height: int) -> "Camera":
        """The same camera with an image of another size; each axis of K is scaled by its actual ratio."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return replace(self, K=scale @ self.K, width=width, height=height)

    def with_pose(self, T_world_cam: Float64[np.ndarray, "4 4"]) -> "Camera":
        """The same intrinsics and size at another pose."""
        return replace(self, T_world_cam=T_world_cam)
