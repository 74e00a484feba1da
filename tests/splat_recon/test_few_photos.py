"""Few photos: their mean color is behind everything, in training, in checkpoints and in what is exported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splat_recon import (
    InputError,
    Points,
    SplatModel,
    SplatTrainer,
    SyntheticConfig,
    TrainConfig,
    View,
    ViewSet,
    export_ply,
    export_splats,
    generate_scene,
    normalized,
)
from splat_recon.config import FEW_PHOTOS, regularized_for
from splat_recon.few_photos import NEAR_FRACTION, config_for_photos, near_plane, photo_background
from splat_render import Camera
from splat_render.poses import inverse, transform_camera, transform_points
from train_runs import read_checkpoint, write_checkpoint


def photo(rgb_u8: np.ndarray, mask: np.ndarray | None = None) -> View:
    height, width = rgb_u8.shape[:2]
    camera = Camera(T_world_cam=np.eye(4), K=np.diag([width, width, 1.0]), width=width, height=height)
    return View(name="a", camera=camera, rgb_u8=rgb_u8, mask=mask)


def noise(low: int, high: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (64, 80, 3), dtype=np.uint8)


def test_the_background_is_the_mean_color() -> None:
    photos = [photo(noise(0, 100)), photo(noise(100, 200, 1))]
    assert photo_background(photos) == pytest.approx([99.5 / 255] * 3, abs=2 / 255)
    # What a mask leaves out does not count.
    half = noise(0, 100)
    half[:32] = noise(200, 255)[:32]
    mask = np.ones((64, 80), dtype=bool)
    mask[:32] = False
    assert photo_background([photo(half, mask)]) == pytest.approx([49.5 / 255] * 3, abs=3 / 255)


def test_a_backdrop_of_one_color_is_kept() -> None:
    before_white = noise(0, 250)
    before_white[:, :30] = 255
    assert photo_background([photo(before_white)]) == (1.0, 1.0, 1.0)
    before_white[:, 10:30] = noise(0, 250)[:, 10:30]
    assert max(photo_background([photo(before_white)])) < 0.6


def test_many_photos_and_given_colors_are_left_alone() -> None:
    photos = [photo(noise(50, 150))] * (FEW_PHOTOS + 1)
    assert config_for_photos(photos, TrainConfig()) == TrainConfig()
    few = config_for_photos(photos[:3], TrainConfig())
    assert few == replace(regularized_for(3, TrainConfig()), background=photo_background(photos[:3]))
    assert config_for_photos(photos[:3], TrainConfig(), background=(0.0, 0.5, 1.0)).background == (0.0, 0.5, 1.0)


def test_nothing_is_drawn_much_nearer_than_the_nearest_points_of_any_photo() -> None:
    photos = [replace(photo(noise(0, 100)), name=name) for name in "ab"]
    z = np.linspace(2.0, 3.0, 101)
    points = Points(
        p_world=np.stack([0 * z, 0 * z, z], axis=1),
        rgb_u8=np.zeros((101, 3), dtype=np.uint8),
        seen_in={"a": np.arange(101), "b": np.arange(50, 101), "elsewhere": np.arange(3)},
    )
    assert near_plane(photos, points) == pytest.approx(NEAR_FRACTION * 2.02)
    assert near_plane(photos[1:], points) == pytest.approx(NEAR_FRACTION * 2.51)
    # Too few points say nothing, and neither does structure from motion that is not known.
    assert near_plane(photos, replace(points, seen_in={"a": np.arange(3)})) is None
    assert config_for_photos(photos, TrainConfig(), points=points).render_near == near_plane(photos, points)
    assert config_for_photos(photos * 7, TrainConfig(), points=points).render_near is None


def test_run_checkpoint_and_files_show_the_same(tmp_path: Path) -> None:
    scene = normalized(
        generate_scene(
            3, SyntheticConfig(layout="table", num_views=6, width=48, height=36, num_points=60, samples_per_axis=1)
        )
    )
    config = config_for_photos(scene.views, TrainConfig(max_steps=4, sh_degree=0))
    assert min(config.background) > 0.05
    depths = transform_points(scene.views[0].camera.T_cam_world, scene.points.p_world)[:, 2]
    config = replace(config, render_near=float(np.quantile(depths, 0.3)))
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config)
    trainer.train_until(4)
    trainer.save(tmp_path / "checkpoint")
    camera = scene.views[0].camera
    wanted = trainer.render(camera)
    assert wanted.alpha.min() < 0.5  # Much of it is background.
    kept = SplatModel.load(tmp_path / "checkpoint")
    assert np.array_equal(kept.render(camera).rgb, wanted.rgb)
    # Files are in COLMAP's frame.
    in_colmap = transform_camera(inverse(scene.T_scene_colmap), camera)
    look = {"background": config.background, "near_plane": config.render_near}
    export_ply(tmp_path / "a.ply", trainer.gaussians, scene.T_scene_colmap, **look)
    export_splats(tmp_path / "a.compressed.ply", trainer.gaussians, scene.T_scene_colmap, **look)
    for name, tolerance in (("a.ply", 2e-3), ("a.compressed.ply", 3e-2)):
        shown = SplatModel.of_file(tmp_path / name).render(in_colmap)
        assert float((shown.rgb - wanted.rgb).abs().mean()) < tolerance
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), replace(config, render_near=None))
    trainer.train_until(4)
    everything = trainer.render(camera)
    assert float((everything.rgb - wanted.rgb).abs().mean()) > 0.01
    wanted = everything
    export_ply(tmp_path / "a.ply", trainer.gaussians, scene.T_scene_colmap, background=config.background)
    export_splats(tmp_path / "b.spz", trainer.gaussians, scene.T_scene_colmap, background=config.background)
    for name, tolerance in (("a.ply", 2e-3), ("b.spz", 3e-2)):
        shown = SplatModel.of_file(tmp_path / name).render(in_colmap)
        assert float((shown.rgb - wanted.rgb).abs().mean()) < tolerance
    black = SplatModel.of_file(tmp_path / "a.ply", background=(0.0, 0.0, 0.0)).render(in_colmap)
    assert float((black.rgb - wanted.rgb).abs().mean()) > 0.05
    # A viewer that reads no more than Gaussians sees the same in a file with a shell.
    export_splats(
        tmp_path / "c.ply", trainer.gaussians, scene.T_scene_colmap, background=config.background, background_shell=True
    )
    shelled = SplatModel.of_file(tmp_path / "c.ply", background=(0.0, 0.0, 0.0)).render(in_colmap)
    assert float((shelled.rgb - wanted.rgb).abs().max()) < 0.02


def test_settings_of_another_version_are_said_with_the_checkpoint(tmp_path: Path) -> None:
    scene = generate_scene(3, SyntheticConfig(layout="table", num_views=6, width=48, height=36, num_points=60))
    views = ViewSet.from_views(scene.views)
    SplatTrainer(scene, views, TrainConfig(max_steps=1)).save(tmp_path / "made")
    made = read_checkpoint(tmp_path / "made")
    config = made.values["config"] | {"average_last": 0.0}
    write_checkpoint(tmp_path / "older", made.values | {"config": config}, made.tensors)
    words = r"older is of another version: unknown training settings: average_last"
    with pytest.raises(InputError, match=words):
        SplatModel.load(tmp_path / "older")
    with pytest.raises(InputError, match=words):
        SplatTrainer.load(tmp_path / "older", scene, views)
