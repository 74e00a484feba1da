import itertools
from typing import Literal

import numpy as np
import pytest

from splat_recon import CameraPathConfig, camera_path, interpolated
from splat_recon.geometry.camera_paths import Kind
from splat_recon.geometry.trajectories import average_pose, ellipse, focus_point, looking_along, orbit, spiral
from splat_render.poses import matrix_from_quat_wxyz, rigid, rotation_angle
from support.posed_scenes import orbit_camera

POSES = [orbit_camera(index, 6).T_world_cam for index in range(6)]


def assert_rigid(path):
    for pose in path:
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:3, :3]) > 0
        np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])


@pytest.mark.parametrize("closed", [False, True])
def test_a_path_goes_through_all_poses(closed):
    path = interpolated(POSES, 7, closed=closed)
    assert len(path) == 7 * (len(POSES) - (not closed)) + (not closed)
    assert_rigid(path)
    for index, pose in enumerate(POSES):
        np.testing.assert_allclose(path[7 * index], pose, atol=1e-9)


def test_a_path_is_smooth():
    path = interpolated(POSES, 10)
    steps = np.diff([pose[:3, 3] for pose in path], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert lengths.max() < 2 * np.median(lengths)
    bends = np.linalg.norm(np.diff(steps, axis=0), axis=1)
    assert bends.max() < 0.5 * np.median(lengths)
    angles = [rotation_angle(a[:3, :3], b[:3, :3]) for a, b in itertools.pairwise(path)]
    assert max(angles) < 0.1


def test_two_poses_make_a_straight_path():
    path = interpolated(POSES[:2], 4)
    centers = np.array([pose[:3, 3] for pose in path])
    np.testing.assert_allclose(centers, np.linspace(centers[0], centers[-1], 5), atol=1e-12)


def test_wrong_paths_are_refused():
    with pytest.raises(ValueError):
        interpolated(POSES[:1], 3)
    with pytest.raises(ValueError):
        interpolated(POSES, 0)
    with pytest.raises(ValueError):
        ellipse(POSES[:1], 5)
    with pytest.raises(ValueError):
        spiral(POSES, 5, near=0.0, far=1.0)
    with pytest.raises(ValueError):
        looking_along(np.array([0.0, 1, 0]), np.array([0.0, 2, 0]), np.zeros(3))


@pytest.mark.parametrize("axis", ["y", "z"])
def test_an_ellipse_looks_at_what_the_cameras_look_at(axis):
    focus = focus_point(POSES)
    for pose in ellipse(POSES, 9, axis=axis):
        to_focus = focus - pose[:3, 3]
        assert pose[:3, 2] @ to_focus == pytest.approx(np.linalg.norm(to_focus))


def test_an_orbit_is_a_circle_about_what_the_cameras_look_at_in_any_frame():
    turned = rigid(matrix_from_quat_wxyz(np.array([0.3, -0.5, 0.7, 0.2])), np.array([5.0, -2.0, 1.0]))
    for poses in (POSES, [turned @ pose for pose in POSES]):
        focus = focus_point(poses)
        path = orbit(poses, 12)
        assert_rigid(path)
        distances = [np.linalg.norm(focus - pose[:3, 3]) for pose in path]
        assert np.ptp(distances) < 1e-9
        assert distances[0] == pytest.approx(np.mean([np.linalg.norm(focus - pose[:3, 3]) for pose in poses]), rel=0.1)
        for pose in path:
            to_focus = focus - pose[:3, 3]
            assert pose[:3, 2] @ to_focus == pytest.approx(np.linalg.norm(to_focus))
        steps = np.linalg.norm(np.diff([pose[:3, 3] for pose in [*path, path[0]]], axis=0), axis=1)
        assert np.ptp(steps) < 1e-9
        # As the photos are upright, so is the film.
        down = np.mean([pose[:3, 1] for pose in poses], axis=0)
        assert min(pose[:3, 1] @ down for pose in path) > 0.5


def test_a_film_has_as_many_frames_as_are_asked_for():
    cameras = [orbit_camera(index, 6) for index in range(6)]
    kinds: list[Kind] = ["interpolated", "ellipse", "spiral", "orbit"]
    for kind in kinds:
        film = camera_path(cameras, CameraPathConfig(kind=kind, num_frames=7), near=1.0, far=4.0)
        assert len(film) == 7
        assert all(camera.width == cameras[0].width for camera in film)
    through = camera_path(cameras, CameraPathConfig(frames_per_view=3), near=1.0, far=4.0)
    assert len(through) == 16
    ends = camera_path(cameras, CameraPathConfig(num_frames=2), near=1.0, far=4.0)
    np.testing.assert_allclose(ends[1].T_world_cam, cameras[-1].T_world_cam, atol=1e-9)
    with pytest.raises(ValueError, match="two cameras"):
        camera_path(cameras[:1], CameraPathConfig(), near=1.0, far=4.0)
    with pytest.raises(ValueError, match="num_frames"):
        CameraPathConfig(num_frames=0)


def test_parallel_cameras_have_a_focus_on_their_middle_line():
    poses = []
    for x in (-1.0, 1.0):
        pose = np.eye(4)
        pose[0, 3] = x
        poses.append(pose)
    assert focus_point(poses)[0] == pytest.approx(0)


@pytest.fixture
def expected(reference_data):
    return np.load(reference_data / "geometry" / "traj.npz")


@pytest.mark.reference
def test_average_and_focus_agree_with_the_reference_data(expected):
    poses = list(expected["poses"])
    np.testing.assert_allclose(average_pose(poses)[:3], expected["average_pose"], atol=1e-9)
    np.testing.assert_allclose(focus_point(poses), expected["focus_point"], atol=1e-9)


@pytest.mark.reference
def test_ellipses_agree_with_the_reference_data(expected):
    poses = list(expected["poses"])
    axes: list[tuple[Literal["z", "y"], int]] = [("z", 2), ("y", 1)]
    for axis, upright in axes:
        recorded = expected[f"ellipse_{axis}"]
        # The height that the record was made with stands in it.
        path = np.stack(ellipse(poses, len(recorded), axis=axis, height=float(recorded[:, upright, 3].mean())))
        np.testing.assert_allclose(path[:, :3, 3], recorded[:, :, 3], atol=1e-9)
        if axis == "z":
            np.testing.assert_allclose(path[:, :3], recorded, atol=1e-9)
        else:
            # The released path about y looks away from the scene; ours looks at it.
            np.testing.assert_allclose(path[:, :3, 2], -recorded[:, :, 2], atol=1e-9)


@pytest.mark.reference
def test_the_spiral_agrees_with_the_reference_data(expected):
    poses, bounds = list(expected["poses_forward_facing"]), expected["bounds"]
    for name, radius_scale, num_rounds, forward_rounds in (("spiral", 1.0, 2, 0.5), ("spiral_r0.5", 0.5, 1, 0.3)):
        recorded = expected[name]
        near, far = float(bounds.min()), float(bounds.max())
        path = np.stack(
            spiral(
                poses,
                len(recorded),
                near=near,
                far=far,
                num_rounds=num_rounds,
                radius_scale=radius_scale,
                forward_rounds=forward_rounds,
            )
        )
        np.testing.assert_allclose(path[:, :3, 3], recorded[:, :, 3], atol=1e-9)
        # The released path turns about a point behind the cameras; ours looks at one as far in front of them.
        focus = focus_point(list(path))
        distance = np.linalg.norm(path[:, :3, 3] - focus, axis=1)
        looked_at = path[:, :3, 3] + path[:, :3, 2] * distance[:, None]
        np.testing.assert_allclose(looked_at, np.broadcast_to(focus, looked_at.shape), atol=1e-9)
