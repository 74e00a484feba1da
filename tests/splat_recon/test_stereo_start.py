"""Stereo from few photos: depths of a known scene, determinism, what is not believed, and the start it gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from splat_recon import (
    AdcConfig,
    InputError,
    Points,
    Scene,
    StereoConfig,
    StereoMatching,
    StereoStart,
    SyntheticConfig,
    TrainConfig,
    generate_scene,
)
from splat_recon.scene.synthetic import true_depth, true_photo
from splat_recon.stereo.filters import corner_strength, local_deviation, with_valid_depths
from splat_recon.stereo.patch_match import nearest_sources
from splat_recon.stereo.picture import confidence, stereo_picture
from splat_recon.stereo.start import load_depth_maps, points_of, save_depth_maps, wants_stereo

SEED = 12
SIZES = SyntheticConfig(layout="shelf", num_views=4, width=112, height=84)
QUICK = StereoConfig(sizes=(56, 112), num_sweeps=(4, 3), num_geometric_rounds=(1, 1), num_points=500)


def matched(scene: Scene, *, num_threads: int = 2, config: StereoConfig = QUICK) -> StereoStart:
    matching = StereoMatching(scene, scene.views, config, num_threads=num_threads)
    assert matching.num_rounds == 4
    while not matching.done:
        before = matching.num_rounds_done
        matching.advance()
        assert matching.num_rounds_done == before + 1
    matching.advance()
    return matching.start()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return generate_scene(SEED, SIZES)


@pytest.fixture(scope="module")
def start(scene: Scene) -> StereoStart:
    return matched(scene)


def test_believed_depths_are_those_of_the_scene(start: StereoStart):
    errors, fractions = [], []
    for depth_map in start.depth_maps:
        ratio = depth_map.inverse_depth * true_depth(SEED, SIZES, depth_map.camera)
        errors.append(np.abs(ratio - 1)[depth_map.valid])
        fractions.append(depth_map.valid_fraction)
    error = np.concatenate(errors)
    assert np.mean(fractions) > 0.2
    assert np.mean(error < 0.05) > 0.7
    assert np.median(error) < 0.025


def test_points_lie_on_the_surfaces_and_have_their_colors(scene: Scene, start: StereoStart):
    assert len(start.points) == QUICK.num_points
    camera = scene.views[1].camera
    p_cam = start.points.p_world.astype(float) @ camera.T_cam_world[:3, :3].T + camera.T_cam_world[:3, 3]
    uv = np.floor((p_cam @ camera.K.T)[:, :2] / p_cam[:, 2:]).astype(int)
    inside = ((uv >= 0) & (uv < (camera.width, camera.height))).all(axis=1)
    column, row = uv[inside].T
    depth = true_depth(SEED, SIZES, camera)[row, column]
    on_surface = np.abs(p_cam[inside, 2] / depth - 1) < 0.05
    assert on_surface.mean() > 0.6
    colors = start.points.rgb_u8[inside][on_surface].astype(float)
    seen = scene.views[1].rgb_u8[row, column][on_surface].astype(float)
    assert np.median(np.abs(colors - seen).mean(axis=1)) < 20


def test_threads_change_no_bit(scene: Scene, start: StereoStart):
    alone = matched(scene, num_threads=1)
    for one, other in zip(start.depth_maps, alone.depth_maps, strict=True):
        for name in ("inverse_depth", "cost", "num_agreeing", "valid"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(start.points.p_world, alone.points.p_world)


def test_another_seed_gives_other_depths_of_the_same_surfaces(scene: Scene, start: StereoStart):
    other = matched(scene, config=dataclasses.replace(QUICK, seed=1)).depth_maps[0]
    one = start.depth_maps[0]
    both = one.valid & other.valid
    assert not np.array_equal(one.inverse_depth, other.inverse_depth)
    assert np.median(np.abs(one.inverse_depth / other.inverse_depth - 1)[both]) < 0.01


def test_photos_of_nothing_in_common_are_not_believed_and_change_nothing(scene: Scene):
    rng = np.random.default_rng(0)
    noise = [
        dataclasses.replace(view, rgb_u8=rng.integers(0, 256, view.rgb_u8.shape, np.uint8)) for view in scene.views
    ]
    nothing = matched(dataclasses.replace(scene, views=tuple(noise)))
    assert not nothing.helps
    assert len(nothing.scene(scene).points) == len(scene.points)
    assert nothing.train_config(TrainConfig()) == TrainConfig()
    assert "no depth" in nothing.summary()


def test_a_photo_that_looks_away_from_all_points_is_not_believed_and_the_others_are(scene: Scene):
    camera = scene.views[0].camera
    away = camera.T_world_cam @ np.diag([-1.0, 1.0, -1.0, 1.0])
    rgb_u8 = np.random.default_rng(0).integers(0, 256, scene.views[0].rgb_u8.shape, np.uint8)
    turned = dataclasses.replace(scene.views[0], camera=camera.with_pose(away), rgb_u8=rgb_u8)
    assert (scene.points.p_world @ turned.camera.T_cam_world[2, :3] + turned.camera.T_cam_world[2, 3] < 0).all()
    maps = matched(dataclasses.replace(scene, views=(turned, *scene.views[1:]))).depth_maps
    assert [bool(one.valid.any()) for one in maps] == [False, True, True, True]
    assert np.isfinite(maps[0].inverse_depth).all()


def test_one_photo_that_helps_has_one_share_of_pixels(start: StereoStart):
    assert " to " in start.summary()
    maps = [dataclasses.replace(one, valid=one.valid & (index == 0)) for index, one in enumerate(start.depth_maps)]
    summary = StereoStart.of(maps, QUICK).summary()
    assert "points from 1 of 4 photos" in summary
    assert " to " not in summary


def test_matching_ends_with_the_coarsest_level_where_nothing_is_going_to_be_believed(scene: Scene):
    black = tuple(dataclasses.replace(view, rgb_u8=np.zeros_like(view.rgb_u8)) for view in scene.views)
    matching = StereoMatching(scene, black, QUICK)
    while not matching.done:
        matching.advance()
    assert matching.num_rounds == matching.num_rounds_done == 2
    assert not matching.start().helps


def test_one_photo_alone_is_not_believed(scene: Scene, start: StereoStart):
    first = start.depth_maps[0]
    few = [dataclasses.replace(one, num_agreeing=one.num_agreeing * (one is first)) for one in start.depth_maps]
    points = dataclasses.replace(scene.points, seen_in={})
    fraction = with_valid_depths(few, scene.views, points, dataclasses.replace(QUICK, min_fraction=0))[0].valid_fraction
    assert fraction > 0.1
    for min_fraction, believed in ((fraction / 5, True), (fraction / 3, False)):
        maps = with_valid_depths(few, scene.views, points, dataclasses.replace(QUICK, min_fraction=min_fraction))
        assert maps[0].valid.any() == believed
        assert not any(one.valid.any() for one in maps[1:])


def test_masked_pixels_are_not_believed(scene: Scene):
    mask = np.ones((84, 112), bool)
    mask[:, :60] = False
    masked = dataclasses.replace(scene, views=tuple(dataclasses.replace(view, mask=mask) for view in scene.views))
    maps = matched(masked).depth_maps
    assert any(one.valid.any() for one in maps)
    assert not any(one.valid[:, :60].any() for one in maps)
    # Of a small object little of the photo can be believed: the fraction is that of what the mask leaves.
    most = max(one.valid_fraction for one in maps)
    demanding = dataclasses.replace(QUICK, min_fraction=most)
    believed = with_valid_depths(maps, masked.views, masked.points, demanding)
    assert any(one.valid.any() for one in believed)


def test_pixels_nearer_than_the_photos_own_points_are_not_believed(scene: Scene, start: StereoStart):
    depth = 1 / start.depth_maps[0].inverse_depth
    camera = scene.views[0].camera
    p_cam = scene.points.p_world.astype(float) @ camera.T_cam_world[2, :3] + camera.T_cam_world[2, 3]
    limit = float(np.median(depth[start.depth_maps[0].valid]))
    far = np.flatnonzero(p_cam > limit)
    assert len(far) > 20
    points = dataclasses.replace(scene.points, seen_in={scene.views[0].name: far})
    limited = matched(dataclasses.replace(scene, points=points)).depth_maps[0]
    assert limited.valid.any()
    assert (1 / limited.inverse_depth[limited.valid]).min() > limit / QUICK.near_margin


def test_the_scene_keeps_its_points_and_what_is_known_of_them(scene: Scene, start: StereoStart):
    known = dataclasses.replace(scene.points, seen_in={scene.views[0].name: np.array([3, 5])})
    more = start.scene(dataclasses.replace(scene, points=known)).points
    assert len(more) == len(known) + len(start.points)
    assert np.array_equal(more.p_world[: len(known)], known.p_world)
    assert more.seen_in[scene.views[0].name].tolist() == [3, 5]


def test_a_dense_start_grows_less_unless_the_user_said_how(start: StereoStart):
    assert start.train_config(TrainConfig()).strategy == AdcConfig(grow_grad2d=QUICK.grow_grad2d)
    own = TrainConfig(strategy=AdcConfig(grow_grad2d=1e-3))
    assert start.train_config(own) == own


def test_depth_maps_are_kept_bit_for_bit(start: StereoStart, tmp_path: Path):
    path = tmp_path / "stereo.npz"
    save_depth_maps(path, start.depth_maps)
    again = load_depth_maps(path)
    for one, other in zip(start.depth_maps, again, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.camera.T_world_cam, other.camera.T_world_cam)
        for name in ("rgb_u8", "inverse_depth", "cost", "num_agreeing", "valid"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(points_of(again, QUICK).p_world, start.points.p_world)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"stereo\.npz cannot be read"):
        load_depth_maps(path)


def test_auto_stops_where_it_was_not_measured(scene: Scene):
    assert [wants_stereo("auto", scene, number) for number in (1, 2, 12, 13)] == [False, True, True, False]
    assert wants_stereo("on", scene, 100)
    assert not wants_stereo("off", scene, 6)
    with pytest.raises(InputError, match="at least two"):
        wants_stereo("on", scene, 1)
    few = Points(p_world=scene.points.p_world[:3], rgb_u8=scene.points.rgb_u8[:3])
    assert not wants_stereo("on", dataclasses.replace(scene, points=few), 6)


def test_texture_is_told_from_stripes_and_from_flat_color():
    x, y = np.meshgrid(np.arange(40), np.arange(30))
    stripes, checks = 0.5 + 0.3 * np.sin(x), 0.5 + 0.3 * np.sin(x) * np.sin(y)
    assert corner_strength(stripes).max() < 1e-9
    assert corner_strength(checks).min() > 0.01
    assert local_deviation(np.full((30, 40), 0.3)).max() < 1e-6
    assert local_deviation(stripes).min() > 0.1


def test_photos_are_compared_with_the_nearest_that_look_the_same_way(scene: Scene):
    cameras = [view.camera for view in scene.views]
    away = cameras[0].T_world_cam.copy()
    away[:3, :3] = away[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    sources = nearest_sources([*cameras, cameras[0].with_pose(away)], QUICK)
    assert all(4 not in found for found in sources[:4])
    assert len(sources[4]) == 1
    few = nearest_sources(cameras, dataclasses.replace(QUICK, max_sources=2))
    centers = np.stack([camera.center_world for camera in cameras])
    nearest = np.linalg.norm(centers - centers[0], axis=1).argsort()[1]
    assert few[0][0] == nearest
    assert all(len(found) == 2 for found in few)


def test_confidence_is_zero_where_nothing_is_believed_and_the_picture_shows_it(start: StereoStart):
    one = start.depth_maps[0]
    sure = confidence(one)
    assert np.all(sure[~one.valid] == 0)
    assert np.all((sure > 0)[one.valid])
    assert sure.max() <= 1
    picture = stereo_picture(start.depth_maps)
    assert picture.shape[0] > 4 * 84
    third = picture[:84, -112:]
    assert np.array_equal(third[..., 0] > 0, (sure * 255).round() > 0)


def test_a_scene_shows_the_same_from_its_own_cameras(scene: Scene):
    photo = true_photo(SEED, SIZES, scene.views[0].camera)
    assert np.abs(photo - scene.views[0].rgb_u8 / 255).mean() < 0.03
