"""One page that shows a splat in 3D in any browser, with nothing beside it and nothing loaded from elsewhere.

The Gaussians stand in the page in the form of a `.splat` file, 32 bytes each, and a renderer of some 250 lines draws
them with WebGL 2. View-dependent color is left out: what is shown is each Gaussian's mean color.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from markupsafe import Markup

from report_pages import filled
from splat_recon.errors import InputError
from splat_render.cameras import Camera
from splat_render.files.background import BLACK, Background
from splat_render.files.splat import write_splat
from splat_render.gaussians import Gaussians

MAX_CAMERAS = 60
"""More are not offered one by one."""

BYTES_PER_GAUSSIAN = 32 * 4 / 3
"""What a Gaussian adds to a page."""

MAX_EMBEDDED_GAUSSIANS = 60_000
"""A splat of more does not stand in another page: it adds 43 bytes for each."""

NEAREST = 1e-3
"""Nearest depth that is drawn where nothing is said, relative to the splat's radius."""

_PAGE = Path(__file__).with_name("scene_page.html")


def scene_page(
    gaussians: Gaussians,
    cameras: Mapping[str, Camera],
    *,
    title: str,
    background: Background = BLACK,
    near_plane: float | None = None,
) -> str:
    """The page as text.

    Args:
        cameras: By the names of their photos, in the frame of the Gaussians; the page begins at the first, and goes
            from one to the next. None: it begins before the middle of the splat.
        background: sRGB in [0, 1].
        near_plane: The nearest depth at which the Gaussians are to be drawn, in their units; None: any.

    Raises:
        InputError: There is nothing to show.
    """
    if not len(gaussians):
        raise InputError("the splat holds no Gaussians: there is nothing to show")
    means = gaussians.means.detach().cpu().double().numpy()
    with tempfile.TemporaryDirectory() as folder:
        write_splat(Path(folder) / "scene.splat", gaussians)
        content = (Path(folder) / "scene.splat").read_bytes()
    # In a script element only its end tag could be mistaken.
    facts = json.dumps(_facts(means, cameras, background, near_plane), allow_nan=False).replace("<", "\\u003c")
    return filled(
        _PAGE,
        title=title,
        about=f"{title}: {len(gaussians):,} Gaussians",
        background="#" + "".join(f"{round(255 * value):02x}" for value in background),
        facts=Markup(facts),
        splats=base64.b64encode(content).decode(),
    )


def _facts(
    means: Float64[np.ndarray, "n 3"], cameras: Mapping[str, Camera], background: Background, near_plane: float | None
) -> dict[str, Any]:
    middle = np.median(means, axis=0)
    radius = float(np.quantile(np.linalg.norm(means - middle, axis=1), 0.8)) or 1.0
    names = list(cameras)
    chosen = [names[round(float(index))] for index in np.linspace(0, len(names) - 1, min(len(names), MAX_CAMERAS))]
    listed = [_entry(name, cameras[name], middle) for name in chosen]
    up = -np.mean([np.array(entry["T_world_cam"])[:3, 1] for entry in listed], axis=0) if listed else np.zeros(3)
    length = float(np.linalg.norm(up))
    up = up / length if length > 1e-6 else np.array([0.0, -1.0, 0.0])
    if not listed:
        T_world_cam = np.eye(4)
        T_world_cam[:3, 3] = middle - [0, 0, 3 * radius]
        listed = [{"name": "", "T_world_cam": T_world_cam.tolist(), "fov_y": 0.8, "distance": 3 * radius}]
    return {
        "up": up.tolist(),
        "radius": radius,
        "near": NEAREST * radius if near_plane is None else near_plane,
        "background": list(background),
        "cameras": listed,
    }


def _entry(name: str, camera: Camera, middle: Float64[np.ndarray, 3]) -> dict[str, Any]:
    T_world_cam = camera.T_world_cam
    # What is turned around lies in the picture's middle, as far away as the splat's.
    distance = float((middle - T_world_cam[:3, 3]) @ T_world_cam[:3, 2])
    away = float(np.linalg.norm(middle - T_world_cam[:3, 3])) or 1.0
    return {
        "name": name,
        "T_world_cam": T_world_cam.tolist(),
        "fov_y": float(2 * np.arctan(camera.height / 2 / camera.K[1, 1])),
        "distance": distance if distance > 0.1 * away else away,
    }
