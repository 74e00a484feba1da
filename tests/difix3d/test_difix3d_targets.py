"""Where novel views go: around, beside, to a file's cameras; and how far they come."""

import json

import numpy as np
import pytest
import torch

from difix3d import (
    FixResult,
    IdentityFixer,
    InputError,
    ProgressiveConfig,
    ProgressiveTrainer,
    RoundsConfig,
    SteppingConfig,
    ValidationConfig,
    target_poses,
)
from difix3d.loop.target_config import FileTargets, OrbitTargets, PerturbedTargets, SpiralTargets, SpreadTargets
from difix_model.references.poses import pose_distances, ranked_poses, rotation_angles
from difix_model.references.stepping import progress_to_targets, stepped_poses
from splat_recon import SyntheticConfig, TrainConfig, generate_scene, normalized, write_scene
from splat_recon.geometry.trajectories import looking_along

DOWN = np.array([0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def raw_scene():
    config = SyntheticConfig(layout="table", num_views=6, width=40, height=32, num_points=120, samples_per_axis=1)
    return generate_scene(3, config)


def _poses(scene):
    return np.stack([view.camera.T_world_cam for view in scene.views])


def _targets(config, scene):
    generator = np.random.default_rng(0)
    return target_poses(
        config, _poses(scene)[:4], _poses(scene)[4:], extent=scene.extent, generator=generator, scene=scene
    )


def test_photos_from_one_place_have_no_orbit(raw_scene):
    turned = np.repeat(_poses(raw_scene)[:1], 3, axis=0)
    turned[1, :3, :3] = turned[1, :3, :3] @ np.diag([-1.0, 1.0, -1.0])
    with pytest.raises(InputError, match="stand at one place"):
        target_poses(OrbitTargets(), turned, turned[:0], extent=1.0, generator=np.random.default_rng(0))


def test_too_few_photos_are_told_to_hold_none_out(raw_scene):
    one = _poses(raw_scene)[:1]
    with pytest.raises(InputError, match=r"got 1: give more views, hold none out \(--split none\)"):
        target_poses(SpreadTargets(), one, one[:0], extent=1.0, generator=np.random.default_rng(0))


def test_orbit_goes_around_and_spiral_stays_in_front(raw_scene):
    orbit = _targets(OrbitTargets(num_views=8), raw_scene)
    assert orbit.shape == (8, 4, 4)
    gaps = np.linalg.norm(np.diff(orbit[:, :3, 3], axis=0, append=orbit[:1, :3, 3]), axis=1)
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-9)
    spiral = _targets(SpiralTargets(num_views=8), raw_scene)
    center = _poses(raw_scene)[:4, :3, 3].mean(axis=0)
    assert np.linalg.norm(spiral[:, :3, 3] - center, axis=1).max() <= 3 * raw_scene.extent
    for pose in (*orbit, *spiral):
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)


def test_perturbed_views_keep_their_distance_and_angle(raw_scene):
    config = PerturbedTargets(num_views=8, shift=0.2, turn_degrees=7.0)
    targets, captured = _targets(config, raw_scene), np.tile(_poses(raw_scene)[:4], (2, 1, 1))
    offsets = np.linalg.norm(targets[:, :3, 3] - captured[:, :3, 3], axis=1)
    np.testing.assert_allclose(offsets, 0.2 * raw_scene.extent, rtol=1e-9)
    angles = np.diag(rotation_angles(targets[:, :3, :3], captured[:, :3, :3]))
    np.testing.assert_allclose(np.rad2deg(angles), 7.0, rtol=1e-7)


def test_cameras_of_a_file_come_into_the_frame_of_the_scene(raw_scene, tmp_path):
    write_scene(tmp_path / "scene", raw_scene)
    scene = normalized(raw_scene)
    np.testing.assert_allclose(_targets(FileTargets(path=str(tmp_path / "scene")), scene), _poses(scene), atol=1e-6)
    camera = raw_scene.views[0].camera
    frame = {"transform_matrix": (camera.T_world_cam @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()}
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps({"w": 40, "h": 32, "fl_x": 30.0, "frames": [frame]}))
    np.testing.assert_allclose(_targets(FileTargets(path=str(path)), scene)[0], _poses(scene)[0], atol=1e-6)
    (tmp_path / "nothing.json").write_text("{}")
    with pytest.raises(InputError, match="holds no cameras"):
        _targets(FileTargets(path=str(tmp_path / "nothing.json")), scene)


def test_steps_turn_no_farther_than_they_may_and_arrive():
    start, target = np.eye(4)[None].repeat(2, axis=0), np.eye(4)[None]
    target = target.copy()
    target[0, :3, :3] = looking_along(np.array([1.0, 0, 0]), DOWN, np.zeros(3))[:3, :3]
    target[0, 0, 3] = 0.3
    poses, turns = start, []
    for _ in range(8):
        before, poses = poses, stepped_poses(poses, target, 0.5, max_turn_degrees=20.0)
        turns.append(np.rad2deg(rotation_angles(before[:1, :3, :3], poses[:, :3, :3]).item()))
    np.testing.assert_allclose(turns, [20, 20, 20, 20, 10, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(poses, target, atol=1e-12)


def test_progress_is_the_share_of_the_way():
    captured, target = np.eye(4)[None], np.eye(4)[None].copy()
    target[0, 0, 3] = 2.0
    half = target.copy()
    half[0, 0, 3] = 1.0
    assert progress_to_targets(captured, captured, target) == 0
    assert progress_to_targets(captured, half, target) == pytest.approx(0.5)
    assert progress_to_targets(captured, target, target) == 1
    assert progress_to_targets(captured, captured, captured) == 1


def test_units_of_the_world_restore_the_released_steps(raw_scene):
    poses = _poses(raw_scene)
    world = SteppingConfig(step_distance=0.5, unit="world", max_turn_degrees=None)
    config = ProgressiveConfig(
        train=TrainConfig(max_steps=6),
        rounds=RoundsConfig(num_rounds=1, first_round=0.5, last_round=0.5),
        stepping=world,
        validation=ValidationConfig(fraction=0),
    )
    loop = ProgressiveTrainer(raw_scene, raw_scene.views[:4], poses[4:], IdentityFixer(), config)
    loop.train_until(4)
    np.testing.assert_array_equal(loop.main.T_world_novel, stepped_poses(poses[:4], poses[4:], 0.5))


def test_ranked_poses_begin_with_the_nearest(raw_scene):
    poses = _poses(raw_scene)
    ranked = ranked_poses(poses, poses, 3)
    assert ranked.shape == (6, 3)
    assert ranked[:, 0].tolist() == list(range(6))
    distances = np.take_along_axis(pose_distances(poses, poses), ranked, axis=1)
    assert (np.diff(distances, axis=1) >= 0).all()


def test_novel_views_go_in_one_call_each_with_its_references_camera_and_opacity(raw_scene):
    scene = normalized(raw_scene)
    config = ProgressiveConfig(
        train=TrainConfig(max_steps=6),
        rounds=RoundsConfig(num_rounds=1, first_round=0.5, last_round=0.5),
        targets=PerturbedTargets(num_views=2),
        validation=ValidationConfig(fraction=0),
        num_references=2,
    )
    seen = []

    class Recording(IdentityFixer):
        def __call__(self, request):
            seen.append(request)
            return FixResult.of(request, request.rgb + 0.1)

    loop = ProgressiveTrainer(scene, scene.views[:4], _targets(config.targets, scene), Recording(), config)
    loop.train_until(4)
    assert loop.main.novel is not None
    assert len(loop.main.novel.views) == 2
    assert 0 < loop.main.progress <= 1
    (asked,) = seen
    for first, second in asked.references:
        assert not torch.equal(first, second)
    for view, camera, alpha in zip(loop.main.novel.views, asked.cameras, asked.alpha, strict=True):
        assert camera is view.camera
        assert torch.equal(alpha, view.alpha[..., 0])
    torch.testing.assert_close(loop.main.novel.views[0].fixed, loop.main.novel.views[0].rendered + 0.1)
