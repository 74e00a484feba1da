"""Grids become Gaussians that render as they should, and files that hold what the released code writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from diffsplat import ActiveGaussians, GeneratedSplat, InputError, SplatGrids, activated
from diffsplat.cameras import canonical_intrinsics, orbit_rig
from diffsplat.images import as_condition, as_control, centered, without_background
from diffsplat.outputs import OutputConfig, contact_sheet, turntable_frames, write_splat
from diffsplat.render import RENDER_CONFIG, rendered
from diffsplat.training.losses import map_loss, render_losses, wanted_grids
from diffsplat.training.views import generated_views
from splat_render import read_splats

from .conftest import assert_close, read_reference, reference_folder


def splat_of(seed: int = 3, size: int = 48) -> tuple[GeneratedSplat, object]:
    views = generated_views(seed, size)
    cameras = views.input_cameras
    gaussians = activated(SplatGrids.from_channels(wanted_grids(views)[0]), *cameras)
    return (
        GeneratedSplat(prompt="it", gaussians=gaussians, T_world_cam=cameras[0][0], elevation_deg=20.0, seed=seed),
        views,
    )


def test_grids_of_an_objects_maps_render_as_the_object():
    splat, views = splat_of()
    size = views.rgb.shape[-1]  # type: ignore[attr-defined]
    found = rendered(splat.gaussians, views.T_world_cam, views.fxfycxcy, size, size)  # type: ignore[attr-defined]
    error = (found.rgb.clamp(0, 1) - views.rgb).square().mean(dim=(0, 2, 3, 4))  # type: ignore[attr-defined]
    psnr = -10 * torch.log10(error)
    assert float(psnr[:4].min()) > 21
    assert float(psnr[4:].mean()) > 21, "views that were not among the inputs"
    overlap = ((found.alpha > 0.5) & (views.mask > 0.5)).sum() / ((found.alpha > 0.5) | (views.mask > 0.5)).sum()  # type: ignore[attr-defined]
    assert float(overlap) > 0.85
    losses = render_losses(found, views.rgb, views.mask)  # type: ignore[attr-defined]
    assert float(losses["rgb"]) < 0.02
    wanted, _ = wanted_grids(views)  # type: ignore[arg-type]
    assert float(map_loss(SplatGrids.from_channels(wanted), views)) < 1e-9  # type: ignore[arg-type]
    assert float(map_loss(SplatGrids.from_channels(-wanted), views)) > 1  # type: ignore[arg-type]


def test_nothing_is_thickened():
    assert RENDER_CONFIG.eps2d == 0
    one = ActiveGaussians(
        xyz=torch.zeros(1, 1, 3), rgb=torch.zeros(1, 1, 3), scales=torch.full((1, 1, 3), 0.004),
        quats_wxyz=torch.tensor([[[1.0, 0, 0, 0]]]), opacities=torch.full((1, 1), 0.9),
    )  # fmt: skip
    views = rendered(one, orbit_rig(0, [0.0])[None], canonical_intrinsics(1)[None], 64, 64)
    sigma = 0.004 / 1.4 * 1.38889 * 64
    # The sum over pixels of a Gaussian that is wide enough is its opacity times 2 pi sigma^2; this one is narrower than
    # a pixel, and with a dilation of 0.3 it would be four times as wide.
    assert float(views.alpha.sum()) < 0.9 * 2 * torch.pi * (sigma**2 + 0.3) / 2


@pytest.mark.reference
def test_ply_files_hold_what_the_released_code_writes(tmp_path):
    data = read_reference("gsrecon_ply_in.safetensors")
    threshold = float(data.metadata["opacity_threshold"])
    gaussians = ActiveGaussians(
        xyz=data["xyz"][None], rgb=data["rgb"][None], scales=data["scale"][None],
        quats_wxyz=data["rotation"][None], opacities=data["opacity"][None, :, 0],
    )  # fmt: skip
    splat = GeneratedSplat(prompt="", gaussians=gaussians, T_world_cam=orbit_rig(-10.0), elevation_deg=10, seed=0)
    num = write_splat(tmp_path / "splat.ply", splat, min_opacity=threshold)
    found = PlyData.read(str(tmp_path / "splat.ply"))["vertex"]
    wanted = PlyData.read(str(reference_folder() / "gsrecon_tiny_pc0.ply"))["vertex"]
    assert num == len(found.data) == len(wanted.data)
    for prop in wanted.properties:
        np.testing.assert_allclose(
            found[prop.name].astype(float), wanted[prop.name].astype(float), rtol=1e-5,
            atol=1.0 if wanted[prop.name].dtype == np.uint8 else 1e-5, err_msg=prop.name,
        )  # fmt: skip


@pytest.mark.parametrize("ending", ["ply", "spz", "splat"])
def test_splat_files_render_alike(tmp_path, ending):
    splat, _ = splat_of()
    path = tmp_path / f"splat.{ending}"
    num = write_splat(path, splat, min_opacity=0.05)
    back = read_splats(path).gaussians
    assert len(back) == num < splat.gaussians.xyz.shape[1]
    again = GeneratedSplat(
        prompt="", T_world_cam=splat.T_world_cam, elevation_deg=20, seed=0,
        gaussians=ActiveGaussians(
            xyz=back.means[None], rgb=(0.5 + 0.28209479177387814 * back.sh0[:, 0])[None], scales=back.scales[None],
            quats_wxyz=torch.nn.functional.normalize(back.quats_wxyz, dim=-1)[None], opacities=back.opacities[None],
        ),
    )  # fmt: skip
    error = (again.render(splat.T_world_cam, 48) - splat.render(splat.T_world_cam, 48)).square().mean()
    assert float(error) < {"ply": 1e-6, "spz": 2e-3, "splat": 2e-3}[ending]


def test_a_turntable_decodes_nothing_and_turns():
    splat, _ = splat_of(size=32)
    frames = list(turntable_frames(splat, 4, 32))
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 4
    assert np.abs(frames[0].astype(int) - frames[1].astype(int)).max() > 20
    sheet = contact_sheet(splat, 32)
    assert sheet.shape == (32, 128, 3)


def test_an_empty_splat_is_refused(tmp_path):
    splat, _ = splat_of(size=32)
    faint = replace(splat, gaussians=replace(splat.gaussians, opacities=0.1 * splat.gaussians.opacities))
    with pytest.raises(InputError, match="more opaque"):
        write_splat(tmp_path / "splat.ply", faint, min_opacity=0.2)
    with pytest.raises(InputError, match="no format"):
        OutputConfig(formats=())


def test_gradients_reach_everything_a_network_predicts():
    views = generated_views(1, 24, num_extra=0)
    grids = SplatGrids.from_channels(wanted_grids(views)[0])
    with torch.enable_grad():
        # Off the ends of their ranges, where the logit of an opacity is cut.
        channels = (grids.channels() * 0.8).clone().requires_grad_()
        gaussians = activated(SplatGrids.from_channels(channels), *views.input_cameras)
        found = rendered(gaussians, views.T_world_cam, views.fxfycxcy, 24, 24)
        (found.rgb - views.rgb).square().sum().backward()
    assert channels.grad is not None
    for name, part in zip(
        ("rgb", "scale", "rotation", "opacity", "depth"), channels.grad.split([3, 3, 4, 1, 1], dim=2), strict=True
    ):
        reach = float(part.abs().max())
        # Round Gaussians look the same however they are turned.
        assert reach > 0 or name == "rotation", name


def test_an_images_subject_is_found_and_centered():
    pixels = np.full((60, 90, 3), 240, np.uint8)
    pixels[10:30, 50:80] = (20, 90, 200)
    image = Image.fromarray(pixels)
    cut = without_background(image)
    square = centered(cut)
    assert square.width == square.height
    condition = as_condition(image, 64, remove_background=True)
    assert condition.shape == (1, 3, 64, 64)
    subject = (condition[0] < 0.9).any(dim=0).nonzero()
    low, high = subject.min(dim=0).values, subject.max(dim=0).values
    assert abs(float((low + high).float().mean()) - 63) < 2
    assert float(high[1] - low[1] + 1) / 64 == pytest.approx(0.8, abs=0.05)
    with pytest.raises(InputError, match="no subject"):
        as_condition(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 64, remove_background=True)
    with pytest.raises(InputError, match="even background"):
        as_condition(Image.new("RGB", (8, 8), (9, 9, 9)), 64, remove_background=True)
    with pytest.raises(InputError, match="64x64"):
        as_control(Image.new("RGB", (8, 8)), 64)
    assert_close(as_control(Image.new("RGB", (8, 8)), 8), torch.zeros(1, 3, 8, 8), 1e-6)
