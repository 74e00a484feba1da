"""What the drawing of a viewer sees of a browser's page, and a clock that goes when it is told to."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from splat_recon.pages.view_requests import SETTLED_SECONDS
from splat_render import Camera
from splat_render.poses import quat_wxyz_from_matrix
from support.splat_scenes import make_camera


class Page:
    """A browser's page, as far as the drawing sees one."""

    def __init__(self, camera: Camera | None = None, width: int = 400, height: int = 300) -> None:
        camera = make_camera() if camera is None else camera
        self.camera = SimpleNamespace(
            wxyz=quat_wxyz_from_matrix(camera.T_world_cam[:3, :3]),
            position=camera.center_world.copy(),
            fov=0.9,
            image_width=width,
            image_height=height,
        )
        self.scene = self
        self.pictures: list[np.ndarray] = []

    def set_background_image(self, picture: np.ndarray, format: str, jpeg_quality: int) -> None:
        assert format == "jpeg"
        assert 0 < jpeg_quality <= 100
        self.pictures.append(picture)


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def settle(self) -> None:
        self.now += SETTLED_SECONDS + 0.01
