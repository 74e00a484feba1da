"""The color behind a splat travels with its file, and as a shell it is seen by everyone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from splat_render import Camera, Gaussians, InputError, SplatFile, make_rasterizer, read_splats, write_splats
from splat_render.files.formats import ENDINGS, read_background
from splat_render.shell import NUM_SHELL, with_shell

SAND = (0.75, 0.5, 0.25)


def ball() -> Gaussians:
    """A red ball of a few Gaussians at the origin."""
    generator = torch.Generator().manual_seed(0)
    sh0 = torch.zeros(20, 1, 3)
    sh0[..., 0] = 1.5
    return Gaussians(
        means=0.1 * torch.randn(20, 3, generator=generator),
        log_scales=torch.full((20, 3), -3.0),
        quats_wxyz=torch.tensor([[1.0, 0, 0, 0]]).repeat(20, 1),
        logit_opacities=torch.full((20,), 3.0),
        sh0=sh0,
        sh_rest=torch.zeros(20, 3, 3),
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_says_what_is_behind(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"ball{ending}"
    write_splats(path, SplatFile(gaussians=ball(), background=SAND))
    assert read_splats(path).background == pytest.approx(SAND)
    assert read_background(path) == pytest.approx(SAND)
    # Whoever writes before black leaves no word of another color.
    write_splats(path, SplatFile(gaussians=ball()))
    assert read_splats(path).background is None
    assert read_background(path) is None
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_wrong_background_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ball.spz"
    write_splats(path, SplatFile(gaussians=ball(), background=SAND))
    (tmp_path / "ball.spz.background.json").write_text('{"background_color": [1, 2, 3]}')
    with pytest.raises(InputError, match=r"ball\.spz\.background\.json: its background .* is not three numbers"):
        read_splats(path)
    assert read_background(tmp_path / "nowhere.ply") is None


@pytest.mark.parametrize("ending", [".ply", ".compressed.ply"])
def test_ply_files_say_how_near_they_are_drawn(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"ball{ending}"
    write_splats(path, SplatFile(gaussians=ball(), near_plane=0.25))
    assert read_splats(path).near_plane == pytest.approx(0.25)
    write_splats(path, SplatFile(gaussians=ball()))
    assert read_splats(path).near_plane is None


@pytest.mark.parametrize("ending", [".spz", ".splat"])
def test_formats_that_cannot_say_it_are_warned_of(
    ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_splats(tmp_path / f"ball{ending}", SplatFile(gaussians=ball()))
    assert not caplog.records
    write_splats(tmp_path / f"ball{ending}", SplatFile(gaussians=ball(), near_plane=0.25))
    assert f"ball{ending} cannot say from what depth on" in caplog.text


@pytest.mark.parametrize("text", ["-1", "0", "nan", "near"])
def test_a_wrong_near_plane_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ball.ply"
    write_splats(path, SplatFile(gaussians=ball()), comments=[f"NearPlane: {text}"])
    with pytest.raises(InputError, match=r'ball\.ply: "NearPlane: .* is no depth above 0'):
        read_splats(path)


@pytest.mark.parametrize("azimuth", [0.0, 1.1, 2.9])
def test_a_shell_looks_like_the_background(azimuth: float) -> None:
    cos, sin = np.cos(azimuth), np.sin(azimuth)
    T_world_cam = np.eye(4)
    # Looks along (sin, 0, cos) from behind the ball.
    T_world_cam[:3, :3] = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    T_world_cam[:3, 3] = -0.6 * T_world_cam[:3, 2]
    camera = Camera(T_world_cam=T_world_cam, K=np.array([[40.0, 0, 30], [0, 40, 20], [0, 0, 1]]), width=60, height=40)
    rasterize = make_rasterizer("cpu")
    wanted = rasterize(ball(), camera, sh_degree=1, background=torch.tensor(SAND))
    shelled = with_shell(ball(), SAND)
    assert len(shelled) == 20 + NUM_SHELL
    shown = rasterize(shelled, camera, sh_degree=1)
    assert shown.alpha.min() > 0.99
    assert (shown.rgb - wanted.rgb).abs().max() < 2 / 255
    # It is not black that was compared with black.
    assert (wanted.rgb - torch.tensor(SAND)).abs().amax(dim=-1).min() < 1e-3


def test_a_shell_is_around_something() -> None:
    gaussians = ball()
    nothing = Gaussians(**{name: tensor[:0] for name, tensor in gaussians.parameters().items()})
    with pytest.raises(ValueError, match="needs Gaussians"):
        with_shell(nothing, SAND)
