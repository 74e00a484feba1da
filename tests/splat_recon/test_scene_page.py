"""The page that shows a splat in 3D: complete in itself, and in a browser it shows what the rasterizer shows."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splat_recon import InputError
from splat_recon.pages.scene_page import MAX_CAMERAS, scene_page
from splat_render import Camera, Gaussians, make_rasterizer
from splat_render.rasterizer import RenderConfig

WIDTH, HEIGHT = 320, 240
BACKGROUND = (0.1, 0.2, 0.4)


def camera(shift: float = 0.0) -> Camera:
    T_world_cam = np.eye(4)
    T_world_cam[:3, 3] = [shift, 0.1, -3.0]
    K = np.array([[260.0, 0, WIDTH / 2], [0, 260.0, HEIGHT / 2], [0, 0, 1]])
    return Camera(T_world_cam=T_world_cam, K=K, width=WIDTH, height=HEIGHT)


def splats(count: int = 40) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    drawn = partial(torch.randn, generator=generator)
    return Gaussians(
        means=0.6 * drawn(count, 3),
        log_scales=-2.0 + 0.6 * drawn(count, 3),
        quats_wxyz=torch.nn.functional.normalize(drawn(count, 4), dim=1),
        logit_opacities=1.0 + drawn(count),
        sh0=0.9 * drawn(count, 1, 3),
        sh_rest=torch.zeros(count, 0, 3),
    )


def test_a_page_is_complete_and_loads_nothing() -> None:
    page = scene_page(splats(), {"</script>": camera(), "b": camera(0.2)}, title="a < b", background=BACKGROUND)
    assert not re.search(r"(?:src|href)\s*=|https?://|@import|fetch\(|XMLHttpRequest|import\s*\(", page)
    assert "<!--" not in page
    assert "a &lt; b" in page
    assert page.count("</script>") == 3
    (held,) = re.findall(r'octet-stream">([^<]*)<', page)
    assert len(base64.b64decode(held)) == 40 * 32


def test_many_cameras_are_thinned_out_and_none_are_needed() -> None:
    many = {f"{index:03d}.jpg": camera(index / 100) for index in range(3 * MAX_CAMERAS)}
    assert scene_page(splats(), many, title="many").count('"fov_y"') == MAX_CAMERAS
    assert scene_page(splats(), {}, title="none").count('"fov_y"') == 1
    with pytest.raises(InputError, match="nothing to show"):
        scene_page(splats(0), {}, title="empty")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium to look with")
def test_a_browser_shows_what_the_rasterizer_shows(tmp_path: Path) -> None:
    gaussians = splats()
    page = scene_page(gaussians, {"a": camera()}, title="scene", background=BACKGROUND)
    (tmp_path / "scene.html").write_text(page, encoding="utf-8")
    # The bar below covers a part of the picture; what is taken is what stands above it.
    command = [
        "chromium", "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--hide-scrollbars",
        "--enable-unsafe-swiftshader", f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}",
        (tmp_path / "scene.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    shown = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"), dtype=np.float64)
    height = shown.shape[0]
    looked = camera()
    # The page keeps the vertical angle of view, whatever the window's height.
    K = looked.K.copy()
    K[:2] *= height / HEIGHT
    K[0, 2], K[1, 2] = shown.shape[1] / 2, height / 2
    seen_by = Camera(T_world_cam=looked.T_world_cam, K=K, width=shown.shape[1], height=height)
    rasterize = make_rasterizer("cpu", RenderConfig())
    expected = rasterize(gaussians, seen_by, sh_degree=0, background=torch.tensor(BACKGROUND)).rgb.numpy() * 255
    above_bar = slice(0, height // 2)
    assert np.ptp(shown[above_bar]) > 100, "the picture is empty"
    assert np.abs(shown[above_bar] - expected[above_bar]).mean() < 2.0
