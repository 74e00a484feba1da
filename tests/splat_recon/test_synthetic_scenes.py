"""Generated scenes: the same from the same seed, geometrically consistent, and different from each other."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat_recon import InputError, SyntheticConfig, generate_scene
from splat_recon.scene.synthetic import DEMO_SEED, true_depth
from splat_recon.scene.synthetic.cameras import look_at
from splat_recon.scene.synthetic.config import LAYOUTS
from splat_recon.scene.synthetic.layouts import make_world
from splat_recon.scene.synthetic.panoramas import photographic_texture, read_panoramas
from splat_recon.scene.synthetic.raycast import cast_image
from splat_render import Camera

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


def test_panoramas_surround_scenes_and_are_cut_into_textures(tmp_path: Path) -> None:
    """With a green one and a red one: a street's sky is one of them, and textures are red or green."""
    for name, color in (("green", (0, 200, 0)), ("red", (200, 0, 0))):
        Image.new("RGB", (64, 32), color).save(tmp_path / f"{name}.png")
    panoramas = read_panoramas(tmp_path)
    rng = np.random.default_rng(0)
    cut = photographic_texture(rng, panoramas, 16)
    assert cut.shape == (16, 16, 3)
    assert (cut[..., :2].max(axis=-1) > 0.02).all()
    assert cut[..., 2].max() == 0
    world = make_world(rng, "street", panoramas=panoramas)
    assert sum(texture[..., 2].max() < 0.03 for texture in world.textures) > len(world.textures) // 2
    config = dataclasses.replace(with_layout("garden"), panoramas=tmp_path)
    scene = generate_scene(3, config)
    sky = ~np.isfinite(true_depth(3, config, scene.views[0].camera))
    assert sky.sum() > 20
    np.testing.assert_allclose(sorted(np.median(scene.views[0].rgb_u8[sky], axis=0)), [0, 0, 200], atol=1)


def test_a_direction_is_looked_up_where_it_stands_in_a_panorama(tmp_path: Path) -> None:
    """A panorama of azimuth in red and elevation in green shows both at the middle of the sky."""
    rows, columns = np.mgrid[:90, :180]
    rgb_u8 = np.stack([columns, rows * 2, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    Image.fromarray(rgb_u8).save(tmp_path / "one.png")
    panoramas = read_panoramas(tmp_path)
    world = dataclasses.replace(make_world(np.random.default_rng(0), "garden"), surroundings=panoramas[0])
    eye = np.array([0.0, 0.0, 40.0])
    for azimuth in (0.3, -2.0):
        target = eye + np.array([np.cos(azimuth), np.sin(azimuth), 0.4])
        K = np.array([[400.0, 0, 16], [0, 400, 12], [0, 0, 1]])
        camera = Camera(T_world_cam=look_at(eye, target), K=K, width=32, height=24)
        middle = cast_image(world, camera, 1)[12, 16] * 255
        np.testing.assert_allclose(middle[0], (0.5 + azimuth / (2 * np.pi)) * 180, atol=2)
        np.testing.assert_allclose(middle[1], 2 * (0.5 - np.arctan(0.4) / np.pi) * 90, atol=4)


def test_a_folder_without_panoramas_and_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no panorama"):
        read_panoramas(tmp_path)
    Image.new("RGB", (40, 32)).save(tmp_path / "square.png")
    with pytest.raises(InputError, match="twice as wide as high"):
        read_panoramas(tmp_path)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        generate_scene(-1, SMALL)
