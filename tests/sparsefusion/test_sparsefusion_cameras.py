from __future__ import annotations

import pytest
import torch

from sparsefusion import Cameras, circle_cameras, depth_range
from sparsefusion.cameras import fit_circle, grid_rays, nearest_to_axes
from sparsefusion.embeddings import harmonic, pluecker
from sparsefusion.losses import huber
from support.sparsefusion_cases import ReferenceData, ring, worst


@pytest.mark.reference
def test_cameras_agree_with_the_recording(recordings: ReferenceData):
    data = recordings.open("cameras")
    cameras, relative = data.cameras("in"), data.cameras("rel_origin")
    assert worst(cameras.centers, data["cam_centers"]) < 1e-5
    ours = cameras.relative_to(cameras[0], "camera")
    assert worst(ours.R, relative.R) < 1e-5
    assert worst(ours.T, relative.T) < 1e-5
    projected, theirs = relative.project(data["ndc_in"][0]), data["ndc_out"][..., :2]
    assert ((projected - theirs).abs() / (1 + theirs.abs())).max() < 1e-5
    near, far = depth_range(cameras)
    assert (near, far) == pytest.approx((data["min_depth"].item(), data["max_depth"].item()), abs=1e-5)
    assert worst(nearest_to_axes(cameras), data["centroid"]) < 1e-4


@pytest.mark.reference
def test_grid_rays_agree_with_the_recording(recordings: ReferenceData):
    data = recordings.open("cameras")
    theirs = data["rays32.directions"][0]
    rays = grid_rays(data.cameras("rel_origin"), theirs.shape[0], int(data["in.image_size"][0, 0]))
    (camera,) = [
        at for at in range(len(rays.origins)) if (rays.origins[at] - data["rays32.origins"][0]).abs().max() < 1e-4
    ]
    assert worst(rays.directions[camera], theirs) < 1e-5


@pytest.mark.reference
def test_embeddings_and_huber_agree_with_the_recording(recordings: ReferenceData):
    data = recordings.open("cameras")
    octaves = (data["harm_out"].shape[-1] // data["harm_in"].shape[-1] - 1) // 2
    assert worst(harmonic(data["harm_in"], octaves), data["harm_out"]) < 1e-6
    assert worst(huber(data["huber_a"], data["huber_b"]), data["huber"]) < 1e-6


@pytest.mark.reference
def test_the_circle_agrees_with_the_recording(recordings: ReferenceData):
    data = recordings.open("distillation_loop")
    scene, augmented = data.cameras("scene"), data.cameras("aug")
    count = len(augmented) - len(scene)
    torch.manual_seed(int(data.metadata["seed"]))
    circle = circle_cameras(scene, count, tilts=(2 * torch.rand(count) - 1) * 0.17)
    assert worst(circle.R, augmented.R[len(scene) :]) < 1e-5
    assert worst(circle.T, augmented.T[len(scene) :]) < 1e-5
    turned = augmented.relative_to(augmented[0], "axes")
    assert worst(turned.R, data["aug_vox.R"]) < 1e-5
    assert worst(turned.T, data["aug_vox.T"]) < 1e-5


def test_a_relative_camera_sees_the_same():
    cameras = ring()
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    reference = cameras[2]
    moved = points @ reference.R[0] + reference.T[0]
    assert worst(cameras.relative_to(reference, "camera").project(moved), cameras.project(points)) < 1e-4
    assert (
        worst(cameras.relative_to(reference, "axes").project(points @ reference.R[0]), cameras.project(points)) < 1e-4
    )


def test_rays_project_back_to_their_grid():
    cameras = ring(3)
    rays = grid_rays(cameras, 8, 64)
    for at in range(3):
        points = (rays.origins[at] + 3 * rays.directions[at]).reshape(-1, 3)
        ndc = cameras[at].project(points)[0].view(8, 8, 2)
        assert ndc[0, 0].tolist() == pytest.approx([1 - 1 / 64] * 2, abs=1e-5)
        assert cameras[at].depths(points).sub(3).abs().max() < 1e-4


def test_the_circle_goes_through_cameras_on_a_circle_and_looks_at_their_target():
    cameras = ring(6)
    circle = fit_circle(cameras)
    assert circle.radius == pytest.approx(6.0, abs=1e-4)
    around = circle_cameras(cameras, 9)
    assert (around.centers[:, 1] - 2.0).abs().max() < 1e-4
    assert around.project(torch.zeros(1, 3)).abs().max() < 1e-4
    assert (around.R[:, :, 1] @ torch.tensor([0.0, 1.0, 0.0]) > 0.5).all()


def test_a_tilt_moves_by_its_angle_unless_as_published():
    cameras = ring(6)
    tilts = torch.full((9,), 0.1)
    flat = circle_cameras(cameras, 9).centers
    exact = circle_cameras(cameras, 9, tilts=tilts, as_published=False).centers
    cosine = torch.nn.functional.cosine_similarity(flat, exact, dim=-1)
    assert cosine.arccos().sub(0.1).abs().max() < 1e-3
    published = circle_cameras(cameras, 9, tilts=tilts).centers
    assert torch.nn.functional.cosine_similarity(flat, published, dim=-1).arccos().max() < 0.05


def test_pluecker_coordinates_do_not_depend_on_the_point_of_the_line():
    generator = torch.Generator().manual_seed(1)
    origins, directions = torch.randn(2, 7, 3, generator=generator)
    assert worst(pluecker(origins + 2.5 * directions, 3 * directions), pluecker(origins, directions)) < 1e-5


def test_choosing_one_camera_keeps_its_axis():
    cameras = ring(4)
    assert isinstance(cameras[1], Cameras)
    assert cameras[1].R.shape == (1, 3, 3)
    assert torch.equal(cameras[[2, 0]].T, cameras.T[[2, 0]])
