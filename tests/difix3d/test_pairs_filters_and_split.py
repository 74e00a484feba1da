"""Which pairs are left out and counted, and which scenes are for testing."""

import dataclasses

import numpy as np
import pytest

from difix3d import InputError, PairsConfig
from difix3d.pairs.config import FilterConfig
from difix3d.pairs.filters import REASONS, PairFilter, psnr_u8
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.split import check_test_scenes, scene_split
from splat_recon import Scene, SyntheticConfig, View, generate_scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return generate_scene(2, SyntheticConfig(num_views=4, width=32, height=24))


def render(scene: Scene, noise: float, *, seed: int = 0, view: int = 0, **changes: object) -> GeneratedPair:
    """A photo with noise of so many gray levels, as if a splat had drawn it."""
    photo = scene.views[view].rgb_u8
    levels = np.random.default_rng(seed).normal(0, noise, photo.shape)
    image = np.clip(photo + levels, 0, 255).astype(np.uint8)
    name = scene.names[view]
    pair = GeneratedPair(
        name="x", label="sparse", degraded_u8=image, target=name, reference=scene.names[-1], trained_on=("y.png",)
    )
    return dataclasses.replace(pair, **changes)  # type: ignore[arg-type]


def reasons(scene: Scene, pairs: list[GeneratedPair], config: FilterConfig | None = None) -> list[str | None]:
    pair_filter = PairFilter(scene, config or FilterConfig())
    found = [pair_filter.reason(pair, psnr_u8(pair.degraded_u8, scene.view(pair.target).rgb_u8)) for pair in pairs]
    assert sum(pair_filter.left_out.values()) == sum(reason is not None for reason in found)
    assert set(pair_filter.left_out) <= set(REASONS)
    return found


def test_every_reason_is_found_and_good_pairs_are_kept(scene: Scene) -> None:
    black = np.zeros_like(scene.views[1].rgb_u8)
    white = np.full_like(scene.views[1].rgb_u8, 255)
    far = black if psnr_u8(black, scene.views[1].rgb_u8) < psnr_u8(white, scene.views[1].rgb_u8) else white
    pairs = [
        render(scene, 20),
        render(scene, 20, coverage=0.1),
        render(scene, 0, view=1, degraded_u8=far),
        render(scene, 0, view=2),
        render(scene, 20),
    ]
    limits = FilterConfig(min_psnr=psnr_u8(far, scene.views[1].rgb_u8) + 0.1)
    assert reasons(scene, pairs, limits) == [None, "low_coverage", "below_min_psnr", "same_as_photo", "same_as_other"]


def test_limits_decide(scene: Scene) -> None:
    pair = render(scene, 20)
    psnr = psnr_u8(pair.degraded_u8, scene.views[0].rgb_u8)
    assert reasons(scene, [pair], FilterConfig(max_psnr=psnr - 0.01)) == ["same_as_photo"]
    assert reasons(scene, [pair], FilterConfig(max_psnr=psnr + 0.01)) == [None]
    assert reasons(scene, [pair], FilterConfig(min_psnr=psnr + 0.01)) == ["below_min_psnr"]
    assert reasons(scene, [dataclasses.replace(pair, coverage=0.6)], FilterConfig(min_coverage=0.61)) == [
        "low_coverage"
    ]


def test_photos_left_as_they_are_on_purpose_stay(scene: Scene) -> None:
    assert reasons(scene, [render(scene, 0, trained_on=(), label="corrupted")]) == [None]


def test_the_same_view_degraded_otherwise_is_no_duplicate(scene: Scene) -> None:
    assert reasons(scene, [render(scene, 20, seed=seed) for seed in range(3)]) == [None] * 3


def test_a_standing_camera_gives_near_duplicates_and_a_moving_one_does_not(scene: Scene) -> None:
    first = scene.views[0]
    for shift, expected in ((0.005, "same_as_other"), (0.2, None)):
        pose = first.camera.T_world_cam.copy()
        pose[0, 3] += shift * scene.extent
        second = View(name="second.png", camera=first.camera.with_pose(pose), rgb_u8=first.rgb_u8)
        two = Scene(views=(*scene.views, second), points=scene.points)
        pairs = [render(scene, 20), render(scene, 20, target="second.png")]
        assert reasons(two, pairs) == [None, expected]


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_coverage", 1.5), ("min_psnr", 50.0), ("same_view_distance", -1.0), ("same_image_psnr", -1.0)],
)
def test_filters_name_what_is_wrong(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        FilterConfig(**{field: value})  # type: ignore[arg-type]


def test_the_split_depends_on_seed_and_name_and_meets_its_share() -> None:
    names = [f"scene_{i}" for i in range(500)]
    config = PairsConfig(test_fraction=0.2)
    tests = {name for name in names if scene_split(name, config) == "test"}
    assert 0.14 < len(tests) / len(names) < 0.26
    # A larger share only adds scenes, another seed draws others.
    more = {name for name in names if scene_split(name, dataclasses.replace(config, test_fraction=0.4)) == "test"}
    assert tests < more
    assert tests != {name for name in names if scene_split(name, dataclasses.replace(config, seed=1)) == "test"}
    assert {scene_split(name, dataclasses.replace(config, test_fraction=0)) for name in names} == {"train"}
    assert {scene_split(name, dataclasses.replace(config, test_fraction=1)) for name in names} == {"test"}


def test_named_scenes_are_the_test_split() -> None:
    config = PairsConfig(test_fraction=1, test_scenes=("b",))
    assert [scene_split(name, config) for name in "abc"] == ["train", "test", "train"]
    check_test_scenes(["a", "b"], config)
    with pytest.raises(InputError, match="names b, but the scenes are a, c"):
        check_test_scenes(["c", "a"], config)
