"""A training far from its world's origin: what is exported draws the same picture for the world's own cameras."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from splat_recon import SplatModel, SplatTrainer, TrainConfig, ViewSet, export_ply, export_splats, normalized
from splat_render import read_splats
from splat_render.poses import rigid, transform_camera, transform_points
from support.posed_scenes import orbit_scene

UTM = (500_123.0, 4_649_776.0, 120.0)


@pytest.fixture(scope="module")
def world_scene():
    T = rigid(np.eye(3), np.array(UTM))
    scene = orbit_scene(4)
    views = tuple(replace(view, camera=transform_camera(T, view.camera)) for view in scene.views)
    points = replace(scene.points, p_world=transform_points(T, scene.points.p_world))
    return replace(scene, views=views, points=points)


@pytest.fixture(scope="module")
def trainer(world_scene):
    scene = normalized(world_scene)
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), TrainConfig(max_steps=10, sh_degree_every=2))
    trainer.train_until(10)
    return trainer


@pytest.mark.parametrize("ending", [".ply", ".spz", ".splat", ".compressed.ply"])
def test_exports_draw_the_trainings_picture_for_cameras_of_the_world(trainer, world_scene, tmp_path, ending):
    path = tmp_path / f"a{ending}"
    export_splats(path, trainer.gaussians, trainer.scene.T_scene_colmap)
    content = read_splats(path)
    assert np.linalg.norm(np.array(content.offset) - UTM) < 20
    assert content.gaussians.means.abs().median() < 20
    splats = SplatModel.of_file(path)
    for own, world in zip(trainer.scene.views[:2], world_scene.views[:2], strict=True):
        expected, found = trainer.render(own.camera).rgb, splats.render(world.camera).rgb
        near = splats.without_offset().render(splats.near(world.camera)).rgb
        assert torch.equal(found, near)
        atol = 1e-3 if ending == ".ply" else 0.2
        torch.testing.assert_close(found, expected, atol=atol, rtol=0)
        np.testing.assert_allclose(
            splats.in_world(splats.near(world.camera)).T_world_cam, world.camera.T_world_cam, atol=1e-8
        )
    assert expected.std() > 0.05


def test_export_ply_says_the_same(trainer, tmp_path):
    export_ply(tmp_path / "a.ply", trainer.gaussians, trainer.scene.T_scene_colmap)
    export_splats(tmp_path / "b.ply", trainer.gaussians, trainer.scene.T_scene_colmap)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert b"comment WorldOffset: 50" in (tmp_path / "a.ply").read_bytes()


def test_a_scene_near_its_origin_is_exported_as_ever(tmp_path):
    scene = normalized(orbit_scene(4))
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), TrainConfig(max_steps=2))
    export_splats(tmp_path / "a.spz", trainer.gaussians, scene.T_scene_colmap)
    assert [path.name for path in tmp_path.iterdir()] == ["a.spz"]
    p = read_splats(tmp_path / "a.spz").gaussians.means.double().numpy()
    np.testing.assert_allclose(p, orbit_scene(4).points.p_world, atol=1e-4)
    assert json.dumps(read_splats(tmp_path / "a.spz").offset) == "[0.0, 0.0, 0.0]"
