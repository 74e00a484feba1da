from dataclasses import replace

import numpy as np
import pytest

from splat_recon import (
    Points,
    Scene,
    SplatTrainer,
    SyntheticConfig,
    TrainConfig,
    ViewSet,
    downscaled,
    generate_scene,
    normalized,
    read_scene,
    write_scene,
    write_transforms,
)
from splat_recon.scene.downscale import limited_size
from splat_render.poses import inverse, similarity, transform_camera, transform_points
from support.posed_scenes import orbit_camera, orbit_scene


def pixels(scene):
    """Where every view sees every point."""
    seen = []
    for view in scene.views:
        p_cam = transform_points(view.camera.T_cam_world, scene.points.p_world)
        seen.append((p_cam @ view.camera.K.T)[:, :2] / p_cam[:, 2:])
    return np.stack(seen)


def test_a_normalized_scene_gives_the_same_picture_and_the_way_back():
    scene = orbit_scene(6)
    frame = normalized(scene)
    np.testing.assert_allclose(pixels(frame), pixels(scene), atol=1e-3)
    back = transform_points(inverse(frame.T_scene_colmap), frame.points.p_world)
    np.testing.assert_allclose(back, scene.points.p_world, atol=2e-5)
    spread = np.cov(frame.points.p_world, rowvar=False)
    np.testing.assert_allclose(spread - np.diag(np.diag(spread)), 0, atol=1e-6)
    assert (np.diff(np.diag(spread)) <= 0).all()


def test_normalization_forgets_the_frame_it_started_from():
    scene = orbit_scene(6)
    turn = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    T_moved_scene = similarity(7.0, turn, np.array([0.0, 0, 0]))
    moved = replace(
        scene,
        views=tuple(replace(view, camera=transform_camera(T_moved_scene, view.camera)) for view in scene.views),
        points=Points(
            p_world=transform_points(T_moved_scene, scene.points.p_world).astype(np.float32), rgb_u8=scene.points.rgb_u8
        ),
    )
    assert normalized(moved).extent == pytest.approx(normalized(scene).extent, rel=1e-5)


UTM = (500_123.0, 4_649_776.0, 120.0)
ECEF = (3_912_345.0, 310_000.0, 5_012_345.0)


def moved_by(scene, offset):
    T_moved_scene = similarity(1.0, np.eye(3), np.array(offset))
    views = tuple(replace(view, camera=transform_camera(T_moved_scene, view.camera)) for view in scene.views)
    points = replace(scene.points, p_world=transform_points(T_moved_scene, scene.points.p_world))
    return replace(scene, views=views, points=points)


@pytest.mark.parametrize("offset", [(0.0, 0, 300), UTM, ECEF])
def test_where_a_scene_lies_makes_no_difference(offset):
    near, far = normalized(orbit_scene(6)), normalized(moved_by(orbit_scene(6), offset))
    for view, view_far in zip(near.views, far.views, strict=True):
        np.testing.assert_allclose(view_far.camera.T_world_cam, view.camera.T_world_cam, atol=1e-12)
    # What a training gets is the same to the bit.
    np.testing.assert_array_equal(far.points.p_world.astype(np.float32), near.points.p_world.astype(np.float32))
    back = transform_points(inverse(far.T_scene_colmap), far.points.p_world)
    np.testing.assert_allclose(back, orbit_scene(6).points.p_world + offset, atol=2e-5)
    for view, view_far in zip(orbit_scene(6).views, far.views, strict=True):
        T_back = transform_camera(inverse(far.T_scene_colmap), view_far.camera).T_world_cam
        np.testing.assert_allclose(T_back[:3, 3], view.camera.center_world + offset, atol=2e-6)


@pytest.mark.parametrize("offset", [(0.0, 0, 300), UTM])
def test_a_scene_far_away_trains_like_the_same_one_at_the_origin(tmp_path, offset):
    config = SyntheticConfig(layout="table", num_views=4, width=40, height=32, num_points=200, samples_per_axis=1)
    losses = []
    for name, scene in (("near", generate_scene(5, config)), ("far", moved_by(generate_scene(5, config), offset))):
        for write, kind in ((write_scene, "colmap"), (write_transforms, "json")):
            write(tmp_path / name / kind, scene)
            read = normalized(read_scene(tmp_path / name / kind))
            trainer = SplatTrainer(read, ViewSet.from_views(read.views), TrainConfig(max_steps=20))
            trainer.train_until(20)
            rendered = [trainer.render(view.camera).rgb.detach().numpy() for view in read.views]
            pairs = zip(rendered, read.views, strict=True)
            losses.append(np.mean([np.abs(rgb - view.rgb_u8 / 255) for rgb, view in pairs]))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_points_far_beyond_all_others_change_nothing(caplog):
    scene = orbit_scene(6)
    stray = np.array([[1e7, 0, 0], [0, -3e9, 1e5]])
    points = Points(
        p_world=np.concatenate([stray[:1], scene.points.p_world, stray[1:]]),
        rgb_u8=np.concatenate([np.zeros((1, 3), np.uint8), scene.points.rgb_u8, np.zeros((1, 3), np.uint8)]),
        seen_in={"photo_000.png": np.array([0, 1, 3, 41])},
    )
    near, far = normalized(scene), normalized(replace(scene, points=points))
    assert "2 of 42 points" in caplog.text
    np.testing.assert_allclose(far.points.p_world, near.points.p_world, atol=1e-12)
    np.testing.assert_array_equal(far.points.seen_in["photo_000.png"], [0, 2])
    np.testing.assert_allclose(far.T_scene_colmap, near.T_scene_colmap, atol=1e-12)


def test_a_stray_camera_does_not_set_the_extent():
    scene = orbit_scene(8)
    far = replace(scene.views[0], name="stray.png", camera=moved_by(scene, (1e5, 0, 0)).views[0].camera)
    assert replace(scene, views=(*scene.views, far)).extent == pytest.approx(scene.extent)


def test_normalizing_twice_keeps_the_way_back_to_colmap():
    scene = orbit_scene(6)
    twice = normalized(normalized(scene))
    back = transform_points(inverse(twice.T_scene_colmap), twice.points.p_world)
    np.testing.assert_allclose(back, scene.points.p_world, atol=4e-5)


def test_degenerate_scenes_stay_finite():
    scene = orbit_scene(3)
    no_points = Points(p_world=np.zeros((0, 3), np.float32), rgb_u8=np.zeros((0, 3), np.uint8))
    assert np.isfinite(normalized(replace(scene, points=no_points)).T_scene_colmap).all()
    one_place = tuple(replace(view, camera=scene.views[0].camera) for view in scene.views)
    frame = normalized(replace(scene, views=one_place))
    assert np.isfinite(frame.T_scene_colmap).all()
    assert np.linalg.det(frame.T_scene_colmap[:3, :3]) > 0


def test_upside_down_cameras_are_not_mirrored():
    scene = orbit_scene(1)
    pose = np.diag([1.0, -1, -1, 1])
    view = replace(scene.views[0], camera=orbit_camera(0, 1).with_pose(pose))
    frame = normalized(Scene(views=(view,), points=scene.points))
    assert np.linalg.det(frame.T_scene_colmap[:3, :3]) > 0


@pytest.mark.parametrize(
    ("size", "max_size", "expected"),
    [((640, 480), 320, (320, 240)), ((480, 640), 100, (75, 100)), ((64, 48), 64, (64, 48)), ((3000, 2), 10, (10, 1))],
)
def test_sizes_are_limited(size, max_size, expected):
    width, height = size
    assert limited_size(width, height, max_size) == expected


def test_downscaling_averages_scales_k_and_keeps_small_scenes():
    scene = orbit_scene(3, width=33, height=25, masks=True)
    small = downscaled(scene, 11)
    for view, view_full in zip(small.views, scene.views, strict=True):
        assert view.rgb_u8.shape == (8, 11, 3)
        np.testing.assert_allclose(view.camera.K[0], view_full.camera.K[0] / 3)
        np.testing.assert_allclose(view.camera.K[1], view_full.camera.K[1] * 8 / 25)
        np.testing.assert_allclose(view.rgb_u8.mean(), view_full.rgb_u8.mean(), atol=3)
        assert view.mask is not None
        assert view_full.mask is not None
        assert view.mask.mean() <= view_full.mask.mean()
        assert view.mask.any()
    assert all(a is b for a, b in zip(downscaled(scene, 33).views, scene.views, strict=True))
    with pytest.raises(ValueError, match="max_size"):
        downscaled(scene, 0)
