from dataclasses import replace

import numpy as np
import pytest

from splat_recon import InputError, Points, Scene, View
from splat_render import Camera
from support.posed_scenes import orbit_camera, orbit_scene


def test_resizing_scales_each_axis_by_its_own_ratio_and_keeps_the_corners():
    camera = orbit_camera(0, 3, width=40, height=30)
    small = camera.resized(13, 10)
    assert (small.width, small.height) == (13, 10)
    directions = np.linalg.inv(camera.K) @ np.array([[0, 40.0], [0, 30.0], [1, 1]])
    np.testing.assert_allclose((small.K @ directions)[:2], [[0, 13], [0, 10]], atol=1e-12)


def test_a_camera_does_not_share_the_arrays_it_was_made_from():
    pose = np.eye(4)
    camera = orbit_camera(0, 3).with_pose(pose)
    pose[0, 3] = 5
    assert camera.center_world[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"T_world_cam": np.diag([2.0, 2, 2, 1])},
        {"T_world_cam": np.diag([-1.0, 1, 1, 1])},
        {"T_world_cam": np.full((4, 4), np.nan)},
        {"K": np.diag([0.0, 1, 1])},
        {"K": np.diag([1.0, 1, 2])},
        {"width": 0},
    ],
)
def test_wrong_cameras_are_refused(change):
    with pytest.raises(ValueError):
        replace(orbit_camera(0, 3), **change)


def test_a_scene_sorts_and_selects_its_views():
    scene = orbit_scene(4)
    shuffled = Scene(views=scene.views[::-1], points=scene.points)
    assert shuffled.names == scene.names == tuple(sorted(scene.names))
    assert [view.name for view in scene.select(scene.names[::-2])] == list(scene.names[::-2])
    assert scene.view(scene.names[1]).name == scene.names[1]
    with pytest.raises(KeyError, match="no_such"):
        scene.select([scene.names[0], "no_such"])
    with pytest.raises(KeyError, match="no_such"):
        scene.view("no_such")


def test_the_extent_is_the_largest_distance_from_the_mean_camera():
    centers = np.array([[0.0, 0, 0], [4, 0, 0], [2, 6, 0]])
    base = orbit_camera(0, 3)
    views = []
    for index, center in enumerate(centers):
        pose = base.T_world_cam.copy()
        pose[:3, 3] = center
        image = np.zeros((base.height, base.width, 3), np.uint8)
        views.append(View(name=str(index), camera=base.with_pose(pose), rgb_u8=image))
    points = Points(p_world=np.zeros((0, 3), np.float32), rgb_u8=np.zeros((0, 3), np.uint8))
    assert Scene(views=tuple(views), points=points).extent == pytest.approx(4)


def test_wrong_scenes_are_refused():
    scene = orbit_scene(2)
    view = scene.views[0]
    with pytest.raises(ValueError, match="twice"):
        Scene(views=(view, view), points=scene.points)
    with pytest.raises(ValueError, match="at least one view"):
        Scene(views=(), points=scene.points)
    with pytest.raises(ValueError, match="size"):
        View(name="a", camera=view.camera, rgb_u8=view.rgb_u8[:-1])
    with pytest.raises((ValueError, TypeError), match="mask"):
        View(name="a", camera=view.camera, rgb_u8=view.rgb_u8, mask=np.ones((2, 2), bool))
    with pytest.raises(InputError, match="leaves no pixel"):
        View(name="a", camera=view.camera, rgb_u8=view.rgb_u8, mask=np.zeros(view.rgb_u8.shape[:2], bool))
    with pytest.raises(ValueError):
        Camera(T_world_cam=np.eye(4), K=np.diag([-5.0, 5, 1]), width=4, height=4)


def test_world_to_camera_is_the_inverse_of_the_pose():
    camera = orbit_camera(2, 5)
    np.testing.assert_allclose(camera.T_cam_world @ camera.T_world_cam, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(camera.T_cam_world @ [*camera.center_world, 1], [0, 0, 0, 1], atol=1e-14)
