from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from splat_recon import AdcConfig, PoseConfig, Scene, SplatTrainer, TrainConfig, ViewSet
from splat_recon.geometry.trajectories import looking_along
from splat_recon.per_photo.poses import PoseRefinement, right_jacobian, rotation_from_vector
from splat_render import Camera, Gaussians, make_rasterizer, transformed
from splat_render.poses import rigid, rotation_angle
from support.rendered_scenes import ball, photographed
from support.splat_scenes import make_camera, make_gaussians, watched

VECTORS = [np.zeros(3), np.array([1e-6, 0, 0]), np.array([0.3, -0.2, 0.1]), np.array([-1.1, 2.0, 0.4])]


@pytest.mark.parametrize("vector", VECTORS)
def test_rotations_and_their_derivative(vector: np.ndarray):
    rotation = rotation_from_vector(vector)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert rotation_angle(np.eye(3), rotation) == pytest.approx(np.linalg.norm(vector), abs=1e-9)
    change = 1e-5 * np.array([0.3, 0.5, -0.8])
    moved = rotation_from_vector(vector + change)
    np.testing.assert_allclose(moved, rotation @ rotation_from_vector(right_jacobian(vector) @ change), atol=1e-9)


def _refinement(values: list[float]) -> PoseRefinement:
    refinement = PoseRefinement(PoseConfig(), {"a": np.eye(4)}, extent=2.0, max_steps=10, rate_factor=1.0)
    refinement.table.values[0] = torch.tensor(values)
    return refinement


def _loss(gaussians: Gaussians, camera: Camera) -> torch.Tensor:
    rgb = make_rasterizer("cpu")(gaussians, camera, sh_degree=3).rgb
    weights = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(4))
    smooth = torch.nn.functional.avg_pool2d(weights.permute(2, 0, 1)[None], 9, 1, 4)[0].permute(1, 2, 0)
    return (rgb * smooth).sum()


def test_the_gradient_is_that_of_moving_the_whole_splat_the_other_way():
    """Compared with autograd through an explicit small motion of centers, rotations and harmonics."""
    camera, splat = make_camera(48, 40), make_gaussians(400, seed=2)
    refinement = _refinement([0.0] * 6)
    tied, corrected = refinement.adjust_camera(watched(splat), camera, "a")
    _loss(tied, corrected).backward()
    row = refinement.table.row("a")
    assert row is not None
    assert row.grad is not None

    motion = torch.zeros(6, requires_grad=True)  # Of the splat, in the camera's frame, about the camera's center.
    R, center = (torch.from_numpy(camera.T_world_cam[:3, k]).float() for k in (slice(0, 3), 3))
    turn, shift = R @ motion[:3], 2.0 * (R @ motion[3:])
    offsets = splat.means - center
    quats_w, quats_xyz = splat.quats_wxyz[:, :1], splat.quats_wxyz[:, 1:]
    spread = turn.expand_as(quats_xyz)
    turned_quats = torch.cat(
        [-(quats_xyz @ turn)[:, None], quats_w * spread + torch.linalg.cross(spread, quats_xyz)], 1
    )
    angle = 1e-3
    turned_harmonics = 0
    for axis in range(3):
        ahead, behind = (
            transformed(splat, rigid(rotation_from_vector(sign * angle * np.eye(3)[axis]), np.zeros(3))).sh_rest
            for sign in (1, -1)
        )
        turned_harmonics = turned_harmonics + turn[axis] * (ahead - behind) / (2 * angle)
    moved = splat.parameters() | {
        "means": splat.means + torch.linalg.cross(turn.expand_as(offsets), offsets) + shift,
        "quats_wxyz": splat.quats_wxyz + 0.5 * turned_quats,
        "sh_rest": splat.sh_rest + turned_harmonics,
    }
    _loss(Gaussians(**moved), camera).backward()
    assert motion.grad is not None
    torch.testing.assert_close(row.grad, -motion.grad, rtol=2e-3, atol=2e-3 * float(row.grad.abs().max()))


def test_the_gradient_predicts_the_loss_of_a_shifted_camera():
    camera, splat = make_camera(48, 40), make_gaussians(400, seed=2)
    start = [0.2, -0.1, 0.15, 0.02, -0.03, 0.01]
    refinement = _refinement(start)
    tied, corrected = refinement.adjust_camera(watched(splat), camera, "a")
    _loss(tied, corrected).backward()
    row = refinement.table.row("a")
    assert row is not None
    assert row.grad is not None
    for axis in range(3, 6):
        values = []
        for sign in (1, -1):
            moved = [value + sign * 5e-3 * (index == axis) for index, value in enumerate(start)]
            values.append(float(_loss(splat, _refinement(moved).corrected(camera, "a"))))
        found = (values[0] - values[1]) / 1e-2
        assert float(row.grad[axis]) == pytest.approx(found, rel=0.25, abs=0.05 * float(row.grad.abs().max()))


def test_photos_that_are_not_known_keep_their_cameras():
    camera, splat = make_camera(), make_gaussians(20)
    refinement = _refinement([0.1] * 6)
    assert refinement.adjust_camera(splat, camera, "b") == (splat, camera)
    assert refinement.corrected(camera, "b") is camera
    assert refinement.changes()["a"].rotation_deg == pytest.approx(np.degrees(0.1 * 3**0.5), rel=1e-5)
    assert refinement.changes()["a"].translation == pytest.approx(2.0 * 0.1 * 3**0.5, rel=1e-5)


@cache
def _true_scene() -> Scene:
    """Ten photos from near, all of one side: what each shows the others show too."""
    cameras = []
    for index in range(10):
        azimuth, height = (-0.6 + 1.2 * (index * step % 1) for step in (0.618, 0.377))
        center = 1.9 * np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        T_world_cam = looking_along(-center, np.array([0.0, 0.0, -1.0]), center)
        K = np.array([[28.0, 0, 20], [0, 28.0, 16], [0, 0, 1]])
        cameras.append(Camera(T_world_cam=T_world_cam, K=K, width=40, height=32))
    return photographed(ball(), cameras)


@cache
def _disturbed_scene() -> Scene:
    """The same photos with poses about 3 degrees and 4 % of the extent off, by no motion that all share."""
    scene = _true_scene()
    poses = {view.name: view.camera.T_world_cam for view in scene.views}
    disturbance = PoseRefinement(PoseConfig(), poses, extent=scene.extent, max_steps=10, rate_factor=1.0)
    directions = torch.randn(10, 2, 3, generator=torch.Generator().manual_seed(1))
    turns, shifts = torch.nn.functional.normalize(directions, dim=-1).unbind(dim=1)
    disturbance.table.values[:] = torch.cat([np.radians(3) * turns, 0.04 * shifts], dim=1)
    disturbance.step(0)  # Takes the mean out.
    views = [replace(view, camera=disturbance.corrected(view.camera, view.name)) for view in scene.views]
    return replace(scene, views=tuple(views))


def _errors(trainer: SplatTrainer) -> tuple[float, float]:
    """Mean errors of the poses, in degrees and as a fraction of the extent."""
    pairs = [
        (trainer.refined_camera(view.camera, view.name).T_world_cam, true.camera.T_world_cam)
        for view, true in zip(_disturbed_scene().views, _true_scene().views, strict=True)
    ]
    rotation = np.mean([np.degrees(rotation_angle(a[:3, :3], b[:3, :3])) for a, b in pairs])
    return float(rotation), float(
        np.mean([np.linalg.norm(a[:3, 3] - b[:3, 3]) for a, b in pairs]) / _true_scene().extent
    )


def _trained(pose: PoseConfig | None, steps: int = 300) -> SplatTrainer:
    config = TrainConfig(
        max_steps=steps, sh_degree=0, pose=pose, strategy=AdcConfig(refine_stop=0, reset_every=0),
        init_opacity=0.9, init_scale=0.5,
    )  # fmt: skip
    trainer = SplatTrainer(_disturbed_scene(), ViewSet.from_views(_disturbed_scene().views), config)
    trainer.train_until(steps)
    return trainer


def test_disturbed_poses_are_found_again_and_the_photos_reached():
    trusted = _trained(None)
    rotation_before, translation_before = _errors(trusted)
    assert rotation_before > 2.5
    assert translation_before > 0.025
    refined = _trained(PoseConfig(rotation_rate=7e-3, translation_rate=7e-3, start=20))
    rotation, translation = _errors(refined)
    assert rotation < 0.6 * rotation_before
    assert translation < 0.8 * translation_before
    assert refined.history[-1].loss < 0.5 * trusted.history[-1].loss
    assert np.mean([change.rotation_deg for change in refined.pose_changes().values()]) > 1.5
    assert trusted.pose_changes() == {}


def test_motions_that_all_photos_share_are_not_learned():
    """Also not a scale: the splat stays in the frame of the photos that are held out."""
    scene = _true_scene()
    poses = {view.name: view.camera.T_world_cam for view in scene.views}
    refinement = PoseRefinement(PoseConfig(), poses, extent=scene.extent, max_steps=10, rate_factor=1.0)
    centers = np.stack([T[:3, 3] for T in poses.values()])
    turn, shift, stretch = np.array([0.01, -0.02, 0.015]), np.array([0.02, 0.01, -0.03]), 0.02
    offsets = centers - centers.mean(axis=0)
    moved = shift + np.cross(turn, offsets) + stretch * offsets
    for index, T in enumerate(poses.values()):
        values = np.concatenate([T[:3, :3].T @ turn, T[:3, :3].T @ moved[index] / scene.extent])
        refinement.table.values[index] = torch.from_numpy(values).float()
    assert float(refinement.table.values.abs().max()) > 0.01
    refinement.step(0)
    assert float(refinement.table.values.abs().max()) < 1e-6
