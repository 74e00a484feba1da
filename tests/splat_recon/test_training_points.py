"""A training starts from points that two of its photos see: nothing comes from test photos alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splat_recon import (
    Points,
    Scene,
    SyntheticConfig,
    View,
    generate_scene,
    read_scene,
    with_training_points,
    write_scene,
)
from splat_render import Camera

CONFIG = SyntheticConfig(layout="table", num_views=8, width=48, height=36, num_points=150, samples_per_axis=1)


@pytest.fixture(scope="module")
def generated() -> Scene:
    return generate_scene(3, CONFIG)


def scene_of(seen_in: dict[str, list[int]], num_points: int = 6) -> Scene:
    camera = Camera(T_world_cam=np.eye(4), K=np.diag([4.0, 4, 1]), width=4, height=3)
    views = tuple(View(name=name, camera=camera, rgb_u8=np.zeros((3, 4, 3), np.uint8)) for name in "abcd")
    points = Points(
        p_world=np.arange(3.0 * num_points).reshape(-1, 3),
        rgb_u8=np.zeros((num_points, 3), np.uint8),
        seen_in={name: np.array(idx, dtype=np.int64) for name, idx in seen_in.items()},
    )
    return Scene(views=views, points=points)


def test_points_of_held_out_photos_are_left_out() -> None:
    # 0: two training photos; 1: one and a held-out one; 2: two held-out ones; 3: all; 4: one alone; 5: not tracked.
    scene = scene_of({"a": [0, 1, 3, 4], "b": [0, 3], "c": [1, 2, 3], "d": [2, 3]})
    kept, facts = with_training_points(scene, ["a", "b"])
    np.testing.assert_array_equal(kept.points.p_world, scene.points.p_world[[0, 3, 5]])
    assert [kept.points.seen_in[name].tolist() for name in "abcd"] == [[0, 1], [0, 1], [1], [1]]
    assert (facts.num_kept, facts.num_all, facts.num_train, facts.num_tracked) == (3, 6, 2, 5)
    assert facts.sentence().startswith("Training starts from 3 of 6 points: those that 2 of the 2 training photos see.")
    assert "Of 1 of them it is not known" in facts.sentence()
    again, _ = with_training_points(kept, ["a", "b"])
    assert again is kept
    with pytest.raises(KeyError, match="no view 'e'"):
        with_training_points(scene, ["e"])


def test_points_that_were_drawn_at_random_are_called_so_and_leak_nothing(generated: Scene, tmp_path: Path) -> None:
    none = Points(p_world=np.zeros((0, 3)), rgb_u8=np.zeros((0, 3), np.uint8))
    write_scene(tmp_path / "scene", replace(generated, points=none))
    scene = read_scene(tmp_path / "scene")
    for names in (scene.names[:4], scene.names):
        kept, facts = with_training_points(scene, names)
        assert kept.points.at_random
        assert not facts.may_leak
        assert "brings no points" in facts.sentence()
        assert "from 20000 that are drawn at random" in facts.sentence()


def test_too_few_points_are_said_to_be_replaced_by_random_gaussians() -> None:
    scene = scene_of({"a": [0, 1], "b": [0, 1], "c": [2, 3, 4, 5], "d": [2, 3, 4, 5]})
    _, facts = with_training_points(scene, "ab")
    assert facts.num_kept == 2
    assert "Gaussians are drawn at random instead" in facts.sentence()
    _, facts = with_training_points(scene, "cd")
    assert facts.num_kept == 4
    assert "at random" not in facts.sentence()


def test_with_no_photo_held_out_all_points_stay() -> None:
    scene = scene_of({"a": [0], "b": [], "c": [1], "d": [2]})
    kept, facts = with_training_points(scene, "abcd")
    assert kept is scene
    assert not facts.may_leak
    assert "no photo is held out" in facts.sentence()


def test_without_tracks_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    scene = scene_of({})
    kept, facts = with_training_points(scene, ["a", "b"])
    assert kept is scene
    assert facts.may_leak
    facts.log()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "does not say which photos see them" in caplog.text
    empty, none = with_training_points(scene_of({}, num_points=0), ["a"])
    assert len(empty.points) == 0
    assert not none.may_leak


def test_generated_points_know_who_sees_them_and_a_written_scene_keeps_it(generated: Scene, tmp_path: Path) -> None:
    points = generated.points
    num_seeing = np.zeros(len(points), dtype=int)
    for view in generated.views:
        idx = points.seen_in[view.name]
        num_seeing[idx] += 1
        inside = view.camera.T_cam_world[:3, :3] @ points.p_world[idx].T + view.camera.T_cam_world[:3, 3:]
        x, y = (view.camera.K @ inside)[:2] / inside[2]
        # Noise and outliers move points along the rays of one photo: nearly all stay inside the others.
        assert np.mean((inside[2] > 0) & (x > -3) & (x < 51) & (y > -3) & (y < 39)) > 0.9
    # Each is known from two photos at least, as structure from motion's are.
    assert num_seeing.min() >= 2
    write_scene(tmp_path / "scene", generated)
    read = read_scene(tmp_path / "scene")
    for name, idx in points.seen_in.items():
        np.testing.assert_array_equal(np.sort(read.points.seen_in.get(name, np.zeros(0, int))), idx)
    np.testing.assert_allclose(read.points.p_world, points.p_world)


def test_the_order_of_random_draws_of_generated_scenes_is_unchanged() -> None:
    """Points that know who sees them are the points that did not."""
    scene = generate_scene(3, replace(CONFIG, num_points=40))
    assert len(scene.points) == 40
    assert float(scene.points.p_world.sum()) == pytest.approx(29.56965, abs=1e-4)
