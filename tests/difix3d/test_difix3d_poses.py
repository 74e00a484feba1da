"""Pose distances, nearest views and stepping: parity with the released interpolator, and the laws they obey."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difix3d import InputError, target_poses
from difix3d.loop.target_config import AroundTargets, HeldOutTargets, PathTargets
from difix3d.loop.targets import path_poses
from difix_model.references.poses import nearest_poses, pose_distances
from difix_model.references.stepping import interpolated_pose, stepped_poses
from splat_render.poses import slerp

TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def released(reference_data):
    with np.load(reference_data / "geometry" / "pose_interpolator.npz") as arrays:
        return dict(arrays)


def _sets(released):
    return sorted(name.split(".")[0] for name in released if name.endswith(".dist"))


def _random_poses(seed, count, spread=1.0):
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose in poses:
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        q *= np.sign(np.diag(r))
        pose[:3, :3] = q * np.sign(np.linalg.det(q))
        pose[:3, 3] = rng.normal(size=3) * spread
    return poses


@pytest.mark.reference
def test_distances_and_assignments_match_the_released_code(released):
    for name in _sets(released):
        train, test = released[f"{name}.train"], released[f"{name}.test"]
        np.testing.assert_allclose(pose_distances(test, train), released[f"{name}.dist"], atol=TOLERANCE, rtol=0)
        np.testing.assert_array_equal(nearest_poses(test, train), released[f"{name}.assign"])
        weighted = {"rotation_weight": 0.5, "translation_weight": 2.0}
        np.testing.assert_allclose(
            pose_distances(test, train, **weighted), released[f"{name}.dist_w05_w2"], atol=TOLERANCE, rtol=0
        )
        np.testing.assert_array_equal(nearest_poses(test, train, **weighted), released[f"{name}.assign_w05_w2"])


@pytest.mark.reference
def test_steps_match_the_released_code(released):
    seen = 0
    for key in released:
        name, _, last = key.rpartition(".shift_")
        if not last or not name:
            continue
        stepped = stepped_poses(released[f"{name}.train"], released[f"{name}.test"], float(last))
        np.testing.assert_allclose(stepped, released[key], atol=TOLERANCE, rtol=0, err_msg=key)
        seen += 1
    assert seen


@pytest.mark.reference
def test_rounds_match_the_released_code(released):
    for name in _sets(released):
        poses = released[f"{name}.train"]
        captured = released[f"{name}.train"]
        round_index = 0
        while f"{name}.progress_{round_index}" in released:
            poses = stepped_poses(poses, released[f"{name}.test"], 0.5)
            key = f"{name}.progress_{round_index}"
            np.testing.assert_allclose(poses, released[key], atol=TOLERANCE, rtol=0, err_msg=key)
            np.testing.assert_array_equal(nearest_poses(poses, captured), released[f"{key}_ref_assign"])
            round_index += 1
        assert round_index


@pytest.mark.reference
def test_interpolation_matches_the_released_code(released):
    for name in _sets(released):
        train, test = released[f"{name}.train"], released[f"{name}.test"]
        nearest = nearest_poses(test, train)
        for key in (key for key in released if key.startswith(f"{name}.interp")):
            expected = released[key]
            for index in range(len(expected)):
                path = [
                    interpolated_pose(train[nearest[index]], test[index], fraction)
                    for fraction in np.linspace(0, 1, expected.shape[1])
                ]
                np.testing.assert_allclose(path, expected[index], atol=TOLERANCE, rtol=0, err_msg=key)


@pytest.mark.reference
def test_slerp_matches_the_released_code(released):
    starts, ends, fractions = released["slerp.R1"], released["slerp.R2"], released["slerp.t"]
    expected = released["slerp.out"].reshape(-1, 3, 3)
    found = np.array([slerp(a, b, t) for a, b in zip(starts, ends, strict=True) for t in fractions])
    if not np.allclose(found, expected, atol=TOLERANCE, rtol=0):
        found = np.array([slerp(a, b, t) for t in fractions for a, b in zip(starts, ends, strict=True)])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.reference
def test_the_camera_that_the_released_code_loses_to_nan_is_found(released):
    train, test = released["defect.nan_train"], released["defect.nan_test"]
    assert nearest_poses(test, train).tolist() == [0]
    assert np.isfinite(pose_distances(test, train)).all()


@pytest.mark.reference
def test_fix_sequence_matches_the_released_code(reference_data):
    sequences = json.loads((reference_data / "gsplat" / "fix_sequence.json").read_text())
    golden = reference_data / "colmap" / "golden"
    for name, sequence in sequences.items():
        captured, held_out = _reference_split(golden, sequence)
        poses = captured
        for fix in sequence["fixes"]:
            poses = held_out if len(sequence["fixes"]) == 1 else stepped_poses(poses, held_out, 0.5)
            np.testing.assert_allclose(poses, fix["novel_poses"], atol=TOLERANCE, rtol=0, err_msg=name)
            names = [sequence["train_names"][index] for index in nearest_poses(poses, captured)]
            assert names == fix["ref_names"]


def _reference_split(golden, sequence):
    arguments = sequence["kwargs"]
    stem = f"{sequence['scene']}.f{arguments['factor']}.n{int(arguments['normalize'])}.t{arguments['test_every']}"
    with np.load(golden / f"{stem}.npz") as arrays:
        poses = arrays["camtoworlds"]
    names = json.loads((golden / f"{stem}.json").read_text())["image_names"]
    by_name = dict(zip(names, poses, strict=True))
    return tuple(np.stack([by_name[name] for name in sequence[f"{side}_names"]]) for side in ("train", "val"))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_steps_do_not_depend_on_the_scale_of_the_world(seed, scale):
    current, target = _random_poses(seed, 4), _random_poses(seed + 1, 3)
    stepped = stepped_poses(current, target, 0.3, extent=1.0)
    scaled = [poses.copy() for poses in (current, target, stepped)]
    for poses in scaled:
        poses[:, :3, 3] *= scale
    np.testing.assert_allclose(stepped_poses(scaled[0], scaled[1], 0.3, extent=scale), scaled[2], atol=1e-7 * scale)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_steps_reach_their_targets_and_stay(seed):
    poses, target = _random_poses(seed, 4), _random_poses(seed + 1, 3)
    for _ in range(60):
        before, poses = poses, stepped_poses(poses, target, 0.5)
    np.testing.assert_array_equal(before, poses)
    np.testing.assert_array_equal(poses[:, :3, 3], target[:, :3, 3])


def test_targets_around_lie_between_neighbors_and_repeat_with_the_seed():
    poses = _ring(8)
    config = AroundTargets(num_views=20, jitter=0.0)
    first, again = (
        target_poses(config, poses, poses[:0], extent=1.0, generator=np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (20, 4, 4)
    chord = np.linalg.norm(poses[0, :3, 3] - poses[1, :3, 3])
    to_captured = np.linalg.norm(first[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1).min(axis=1)
    assert (to_captured <= 0.5 * chord + 1e-9).all()
    assert (to_captured > 0.2 * chord).all()


def test_path_is_even_and_ends_at_captured_views():
    poses = _ring(6)[:4]
    path = path_poses(poses, 7, extent=1.0)
    steps = np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    for end in (path[0], path[-1]):
        assert np.abs(poses - end).max(axis=(1, 2)).min() < 1e-9


def test_held_out_targets_are_the_held_out_poses_and_too_few_views_are_refused():
    poses = _ring(5)
    generator = np.random.default_rng(0)
    np.testing.assert_array_equal(
        target_poses(HeldOutTargets(), poses[:2], poses[2:], extent=1.0, generator=generator), poses[2:]
    )
    with pytest.raises(InputError, match="no test views"):
        target_poses(HeldOutTargets(), poses, poses[:0], extent=1.0, generator=generator)
    for config in (AroundTargets(), PathTargets()):
        with pytest.raises(InputError, match="at least 2"):
            target_poses(config, poses[:1], poses[1:], extent=1.0, generator=generator)


def _ring(count):
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, angle in zip(poses, np.linspace(0, 2 * np.pi, count, endpoint=False), strict=True):
        forward = -np.array([np.cos(angle), 0, np.sin(angle)])
        down = np.array([0.0, 1.0, 0.0])
        pose[:3, :3] = np.stack([np.cross(down, forward), down, forward], axis=1)
        pose[:3, 3] = -forward
    return poses


def test_distance_of_equal_poses_is_zero_and_symmetric():
    poses = _random_poses(3, 40)
    distances = pose_distances(poses, poses)
    assert np.abs(np.diag(distances)).max() < 1e-12
    np.testing.assert_allclose(distances, distances.T, atol=1e-12)
