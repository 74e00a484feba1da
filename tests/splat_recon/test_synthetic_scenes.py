"""Generated scenes: the same from the same seed, geometrically consistent, and different from each other."""

import dataclasses

import numpy as np
import pytest

from splat_recon.scene.synthetic import DEMO_SEED, SyntheticConfig, generate_scene
from splat_recon.scene.synthetic.config import LAYOUTS

SMALL = SyntheticConfig(num_views=5, width=48, height=36, num_points=150, sensor_noise=0.0, exposure_spread=0.0)


def with_layout(layout: str) -> SyntheticConfig:
    return SyntheticConfig(
        layout=layout,  # type: ignore[arg-type]
        num_views=5,
        width=48,
        height=36,
        num_points=150,
        sensor_noise=0.0,
        exposure_spread=0.0,
        outlier_fraction=0.0,
        point_noise=0.0,
    )


def test_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    first, again, other = (generate_scene(seed, SMALL) for seed in (3, 3, 4))
    assert first.name == again.name
    np.testing.assert_array_equal(first.points.p_world, again.points.p_world)
    for a, b in zip(first.views, again.views, strict=True):
        np.testing.assert_array_equal(a.rgb_u8, b.rgb_u8)
        np.testing.assert_array_equal(a.camera.T_world_cam, b.camera.T_world_cam)
    assert not np.array_equal(first.views[0].rgb_u8, other.views[0].rgb_u8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_points_have_the_color_of_the_photos_that_see_them(layout: str) -> None:
    scene = generate_scene(7, with_layout(layout))
    assert len(scene.points) > 50
    errors = []
    for view in scene.views:
        camera = view.camera
        p_cam = scene.points.p_world @ camera.T_cam_world[:3, :3].T + camera.T_cam_world[:3, 3]
        pixel = p_cam @ camera.K.T
        x, y = (pixel[:, :2] / pixel[:, 2:]).T
        seen = (p_cam[:, 2] > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
        color = view.rgb_u8[y[seen].astype(int), x[seen].astype(int)].astype(float)
        errors.append(np.abs(color - scene.points.rgb_u8[seen]).mean(axis=1))
    # A point is exact in the photo it came from; in others it may be hidden or fall between pixels.
    found = np.concatenate(errors)
    assert np.median(found) < 25
    assert (found == 0).sum() >= 0.5 * len(scene.points)


def test_photos_show_something() -> None:
    scene = generate_scene(DEMO_SEED, SMALL)
    for view in scene.views:
        assert view.rgb_u8.std() > 15
    assert scene.extent > 0
    np.testing.assert_array_equal(scene.T_scene_colmap, np.eye(4))


@pytest.mark.long
def test_dark_surfaces_make_dark_photos_of_the_same_place() -> None:
    def mean_level(dark_fraction: float) -> float:
        config = dataclasses.replace(SMALL, layout="room", num_views=2, dark_fraction=dark_fraction)
        return float(np.mean([view.rgb_u8.mean() for seed in range(4) for view in generate_scene(seed, config).views]))

    assert mean_level(1.0) < 0.4 * mean_level(0.0)
    assert mean_level(0.0) > mean_level(0.5) > mean_level(1.0)


def test_supersampling_approaches_a_limit() -> None:
    def photo(samples: int) -> np.ndarray:
        config = SyntheticConfig(
            layout="table", num_views=2, width=48, height=36, num_points=16, samples_per_axis=samples,
            sensor_noise=0.0, exposure_spread=0.0,
        )  # fmt: skip
        return generate_scene(5, config).views[0].rgb_u8.astype(float)

    finest = photo(6)
    coarse_error, fine_error = (np.abs(photo(n) - finest).mean() for n in (1, 3))
    assert fine_error < 0.6 * coarse_error


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_views", 1), ("width", 8), ("samples_per_axis", 9), ("outlier_fraction", 1.5), ("dark_fraction", -0.1)],
)
def test_config_names_what_is_wrong(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SyntheticConfig(**{field: value})  # type: ignore[arg-type]


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        generate_scene(-1, SMALL)
