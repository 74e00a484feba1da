"""What each way of degrading is for: the property that it must have."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from difix3d import PairsConfig, generated_sources
from difix3d.pairs import cycle, few
from difix3d.pairs.cross import camera_groups, cross_pairs
from difix3d.pairs.cycle import cycle_pairs, sideways_offset
from difix3d.pairs.few import few_pairs
from difix3d.pairs.filters import psnr_u8
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.sources import GeneratedSource
from difix3d.pairs.sparse import sparse_pairs
from difix3d.pairs.trained import as_bytes, new_trainer
from difix3d.pairs.underfit import underfit_pairs
from splat_recon import (
    Points,
    Scene,
    SplatTrainer,
    StereoConfig,
    StereoStart,
    SyntheticConfig,
    TrainConfig,
    View,
    ViewSet,
    generate_scene,
)
from splat_recon.few_photos import photo_background

CONFIG = PairsConfig(max_size=48, num_views=8, max_steps=80, targets_per_render=8, cycle_shift=(0.2, 0.2))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return generate_scene(3, SyntheticConfig(layout="shelf", num_views=8, width=48, height=36))


def mean_psnr(scene: Scene, pairs: Sequence[GeneratedPair]) -> float:
    return float(np.mean([psnr_u8(pair.degraded_u8, scene.view(pair.target).rgb_u8) for pair in pairs]))


def renamed(scene: Scene, name_of: dict[str, str]) -> Scene:
    views = [dataclasses.replace(view, name=name_of[view.name]) for view in scene.views]
    return Scene(views=tuple(views), points=scene.points, name=scene.name)


def test_underfit_renders_get_better_along_the_schedule(scene: Scene) -> None:
    config = dataclasses.replace(CONFIG, underfit_at=(0.05, 0.3, 1.0))
    pairs = list(underfit_pairs(scene, config, np.random.default_rng(1)))
    early, middle, late = (
        mean_psnr(scene, [pair for pair in pairs if f"_{fraction:03d}_" in pair.name]) for fraction in (5, 30, 100)
    )
    assert early < middle < late
    assert late > early + 1
    assert all(pair.target not in pair.trained_on for pair in pairs)


def test_what_comes_back_from_a_cycle_is_worse_than_the_first_splat(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[SplatTrainer] = []

    def watched(scene: Scene, views: Sequence[View], config: PairsConfig, rng: np.random.Generator) -> SplatTrainer:
        trainers.append(new_trainer(scene, views, config, rng))
        return trainers[-1]

    monkeypatch.setattr(cycle, "new_trainer", watched)
    config = dataclasses.replace(CONFIG, cycle_at=(1.0,))
    pairs = list(cycle_pairs(scene, config, np.random.default_rng(1)))
    first, second = trainers
    assert {pair.target for pair in pairs} == set(scene.names)
    direct = [
        dataclasses.replace(pair, degraded_u8=as_bytes(first.render(scene.view(pair.target).camera))) for pair in pairs
    ]
    assert mean_psnr(scene, pairs) < mean_psnr(scene, direct) - 0.5
    assert isinstance(second.views, ViewSet)
    # The second has seen renders of the shifted trajectory and nothing else.
    offsets = [
        seen.camera.T_world_cam[:3, 3] - view.camera.T_world_cam[:3, 3]
        for seen, view in zip(second.views, scene.views, strict=True)
    ]
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), 0.2 * scene.extent, rtol=1e-9)
    np.testing.assert_allclose(offsets, np.broadcast_to(offsets[0], (len(offsets), 3)), atol=1e-12)
    for seen in second.views:
        expected = as_bytes(first.render(seen.camera))
        np.testing.assert_allclose(seen.rgb.numpy() * 255, expected, atol=1e-3)


def test_a_cycle_without_anything_to_see_gives_no_pairs(scene: Scene) -> None:
    blind = dataclasses.replace(
        CONFIG, max_steps=10, filters=dataclasses.replace(CONFIG.filters, min_coverage=1.0), cycle_shift=(50, 60)
    )
    assert list(cycle_pairs(scene, blind, np.random.default_rng(1))) == []


@pytest.mark.parametrize("layout", ["shelf", "street"])
def test_cameras_that_face_one_way_are_moved_to_their_side(layout: str) -> None:
    scene = generate_scene(4, SyntheticConfig(layout=layout, num_views=6, width=32, height=24))  # type: ignore[arg-type]
    for seed in range(5):
        offset = sideways_offset(scene, CONFIG, np.random.default_rng(seed))
        forward = np.mean([view.camera.T_world_cam[:3, 2] for view in scene.views], axis=0)
        assert np.linalg.norm(offset) == pytest.approx(0.2 * scene.extent)
        assert abs(offset @ forward) / np.linalg.norm(offset) < 0.3
        assert abs(offset[2]) / np.linalg.norm(offset) < 0.3  # z is up in generated scenes.


def test_sparse_can_take_exactly_every_nth_photo(scene: Scene) -> None:
    config = dataclasses.replace(CONFIG, max_steps=10, sparse_every=3, sparse_at=(1.0,))
    starts = set()
    for seed in range(6):
        pairs = list(sparse_pairs(scene, config, np.random.default_rng(seed)))
        seen = pairs[0].trained_on
        first = scene.names.index(seen[0])
        starts.add(first)
        assert first < 3
        assert seen == scene.names[first::3]
        assert {pair.target for pair in pairs} == set(scene.names) - set(seen)
    assert len(starts) > 1


def test_cross_never_trains_on_a_camera_that_it_renders(scene: Scene) -> None:
    folders = {name: f"{'left' if i % 2 else 'right'}/{name}" for i, name in enumerate(scene.names)}
    rig = renamed(scene, folders)
    config = dataclasses.replace(CONFIG, max_steps=10, cross_at=(0.5, 1.0))
    trained = set()
    for seed in range(6):
        pairs = list(cross_pairs(rig, config, np.random.default_rng(seed)))
        assert pairs
        for pair in pairs:
            cameras_seen = {name.split("/")[0] for name in pair.trained_on}
            assert len(cameras_seen) == 1
            assert pair.target.split("/")[0] not in cameras_seen
            assert pair.reference in pair.trained_on
            trained |= cameras_seen
    assert trained == {"left", "right"}


def test_cross_renders_within_reach_only(scene: Scene) -> None:
    config = dataclasses.replace(CONFIG, max_steps=10, cross_max_distance=1e-6)
    assert list(cross_pairs(scene, config, np.random.default_rng(0))) == []


def test_photos_are_grouped_by_folder_then_lens_then_side(scene: Scene) -> None:
    folders = {name: f"cam{i // 4}/{name}" for i, name in enumerate(scene.names)}
    assert [len(group) for group in camera_groups(renamed(scene, folders))] == [4, 4]
    zoomed = [
        dataclasses.replace(view, camera=dataclasses.replace(view.camera, K=view.camera.K * [[1.5], [1.5], [1]]))
        if i < 3
        else view
        for i, view in enumerate(scene.views)
    ]
    by_lens = camera_groups(Scene(views=tuple(zoomed), points=scene.points))
    assert sorted(by_lens) == [list(scene.names[:3]), list(scene.names[3:])]
    # A shelf is photographed from left to right, by names: each side is one half of the row.
    sides = camera_groups(scene)
    assert sorted(map(len, sides)) == [4, 4]
    assert set(sides[0]).isdisjoint(sides[1])
    mean = {i: np.mean([scene.view(name).camera.center_world for name in side], axis=0) for i, side in enumerate(sides)}
    assert np.linalg.norm(mean[0] - mean[1]) > 0.5 * scene.extent
    with pytest.raises(ValueError, match="at least 4 photos"):
        camera_groups(Scene(views=scene.views[:3], points=scene.points))


def test_few_renders_one_splat_and_the_median_of_several(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    start = StereoStart(
        depth_maps=(), points=Points(p_world=np.ones((5, 3)), rgb_u8=np.zeros((5, 3), np.uint8)), config=StereoConfig()
    )
    trainers: list[SplatTrainer] = []

    class Watched(SplatTrainer):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            trainers.append(self)

    monkeypatch.setattr(few, "SplatTrainer", Watched)
    monkeypatch.setattr(few, "STEREO_PROB", 1.0)
    monkeypatch.setattr(few, "stereo_start", lambda scene, photos: start)
    pairs = list(few_pairs(scene, CONFIG, np.random.default_rng(1)))
    assert len(trainers) == few.NUM_SPLATS
    assert len({trainer.config.seed for trainer in trainers}) == few.NUM_SPLATS
    first, *others = (len(trainer.scene.points) for trainer in trainers)
    assert others == [first + 5] * len(others)
    for trainer in trainers:
        assert trainer.config.dropout > 0
        assert trainer.config.background == photo_background(scene.select(pairs[0].trained_on))
    for one, median in zip(pairs[::2], pairs[1::2], strict=True):
        assert one.target == median.target not in one.trained_on
        renders = np.stack([as_bytes(trainer.render(scene.view(one.target).camera)) for trainer in trainers])
        np.testing.assert_array_equal(one.degraded_u8, renders[-1])
        np.testing.assert_allclose(median.degraded_u8, np.median(renders, axis=0), atol=1)


def test_trainings_differ_in_size_and_only_those_of_few_photos_are_regularized(scene: Scene) -> None:
    def drawn(num_views: int) -> list[TrainConfig]:
        rng = np.random.default_rng(3)
        return [new_trainer(scene, scene.views[:num_views], CONFIG, rng).config for _ in range(24)]

    configs = drawn(4)
    caps = np.array([config.strategy.cap_max for config in configs])
    assert caps.min() >= 0.1 * 48 * 36 - 1
    assert caps.max() <= 0.4 * 48 * 36 + 1
    assert caps.max() > 2 * caps.min()
    regularized = [config.dropout > 0 for config in configs]
    assert any(regularized)
    assert not all(regularized)
    wide = [new_trainer(scene, scene.views * 2, CONFIG, np.random.default_rng(seed)).config for seed in range(6)]
    assert all(config.dropout == 0 for config in wide)


def test_varied_scenes_differ_in_how_they_were_photographed() -> None:
    def source(seed: int, *, varied: bool) -> GeneratedSource:
        return GeneratedSource(name=f"generated_{seed:05d}", seed=seed, num_views=3, width=48, varied=varied)

    num_points = [len(source(seed, varied=True).load().points.p_world) for seed in range(6)]
    assert len(set(num_points)) > 3
    again = source(2, varied=True).load()
    assert np.array_equal(again.views[1].rgb_u8, source(2, varied=True).load().views[1].rgb_u8)
    plain = source(2, varied=False).load()
    expected = generate_scene(2, SyntheticConfig(num_views=3, width=48, height=36))
    assert np.array_equal(plain.views[1].rgb_u8, expected.views[1].rgb_u8)
    config = PairsConfig(varied=False)
    assert [found.varied for found in generated_sources(2, 7, config)] == [False, False]  # type: ignore[attr-defined]
