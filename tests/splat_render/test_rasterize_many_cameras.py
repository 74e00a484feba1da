"""Many cameras in one call, plain colors, thin Gaussians, and the README's example."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from splat_render import Gaussians, RenderConfig, make_rasterizer, rasterize, read_ply, write_ply
from support.splat_scenes import make_camera, make_gaussians, watched

REPOSITORY = Path(__file__).resolve().parents[2]


def gradients_of(gaussians: Gaussians) -> dict[str, torch.Tensor]:
    found = {name: tensor.grad for name, tensor in gaussians.parameters().items()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def test_a_batch_is_what_the_cameras_see_one_by_one():
    gaussians = watched(make_gaussians(60, degree=2))
    cameras = [make_camera(turn=0.2), make_camera(turn=-0.4)]
    background = torch.tensor([0.2, 0.5, 0.9])
    batch = rasterize(gaussians, cameras, background=background)
    single = make_rasterizer("cpu")
    for index, camera in enumerate(cameras):
        alone = single(gaussians, camera, sh_degree=2, background=background)
        for name in ("rgb", "alpha", "depth"):
            assert torch.equal(getattr(batch, name)[index], getattr(alone, name))
    (batch.rgb.square().mean() + batch.depth.mean()).backward()
    gradients = gradients_of(gaussians)
    for tensor in gaussians.parameters().values():
        tensor.grad = None
    for camera in cameras:
        alone = single(gaussians, camera, sh_degree=2, background=background)
        ((alone.rgb.square().mean() + alone.depth.mean()) / 2).backward()
    for name, gradient in gradients_of(gaussians).items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_cameras_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="all of one size"):
        rasterize(make_gaussians(8), [make_camera(), make_camera(40, 30)])
    with pytest.raises(ValueError, match="at least one"):
        rasterize(make_gaussians(8), [])


def test_eps2d_0_draws_a_thin_gaussian_thin():
    camera = make_camera(64, 64, turn=0.0)
    thin = make_gaussians(2, scale=0.001).mapped(lambda tensor: tensor[:1])
    thin = Gaussians(**{**thin.parameters(), "means": torch.zeros(1, 3), "logit_opacities": torch.full((1,), 4.0)})
    widened = rasterize(thin, [camera]).alpha.sum()
    as_is = rasterize(thin, [camera], config=RenderConfig(eps2d=0.0)).alpha.sum()
    assert as_is < 0.5 * widened


def _plain(n: int) -> tuple[Gaussians, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    rgb = torch.rand(n, 3, generator=generator)
    opacities = torch.linspace(0, 1, n)
    gaussians = Gaussians.from_rgb(
        means=torch.randn(n, 3, generator=generator),
        scales=torch.rand(n, 3, generator=generator) + 0.01,
        quats_wxyz=torch.randn(n, 4, generator=generator),
        opacities=opacities,
        rgb=rgb,
    )
    return gaussians, rgb, opacities


def test_plain_colors_are_drawn_as_they_are():
    gaussians, _, _ = _plain(1)
    red = Gaussians.from_rgb(
        means=torch.zeros(1, 3),
        scales=torch.full((1, 3), 50.0),
        quats_wxyz=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.ones(1),
        rgb=torch.tensor([[0.9, 0.3, 0.1]]),
    )
    assert gaussians.sh_degree_max == 0
    out = rasterize(red, [make_camera()])
    drawn = (out.rgb / out.alpha.clamp_min(1e-6))[out.alpha[..., 0] > 0.5]
    torch.testing.assert_close(drawn, torch.tensor([[0.9, 0.3, 0.1]]).expand_as(drawn), atol=1e-4, rtol=0)


def test_a_ply_with_bytes_holds_the_same_gaussians_and_leaves_out_faint_ones(tmp_path: Path):
    from plyfile import PlyData

    gaussians, rgb, opacities = _plain(11)
    write_ply(tmp_path / "all.ply", gaussians, with_rgb=True)
    back = read_ply(tmp_path / "all.ply")
    for name, tensor in gaussians.parameters().items():
        assert torch.equal(back.parameters()[name], tensor)
    vertices = PlyData.read(str(tmp_path / "all.ply"))["vertex"]
    written = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, np.rint(255 * rgb.numpy()))
    write_ply(tmp_path / "some.ply", gaussians, min_opacity=0.45)
    assert len(read_ply(tmp_path / "some.ply")) == int((opacities >= 0.45).sum()) < len(gaussians)


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    readme = (REPOSITORY / "packages" / "splat-render" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["out"].rgb.shape == (1, 128, 128, 3)
    assert names["means"].grad.abs().max() > 0
    assert len(names["gaussians"]) == 500
