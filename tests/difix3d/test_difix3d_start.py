"""Beginning with a finished splat: the same picture before and after, whoever wrote it; and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from difix3d import Experiment, InputError, RoundsConfig, RunFolder, RunSettings, ViewFixerConfig
from difix3d.loop.branch import new_trainer
from difix3d.run.configs import progressive_config
from difix3d.run.defaults import resolved
from difix3d.run.start import start_gaussians
from splat_recon import (
    SplatTrainer,
    TrainConfig,
    ViewSet,
    normalized,
    read_scene,
)
from splat_recon.scene.normalize import principal_axes, similarity_from_cameras
from splat_render import Gaussians, SplatFile, transformed, write_ply, write_splats
from splat_render.poses import inverse, similarity, transform_points
from support.table_scene import write_table


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory):
    return write_table(tmp_path_factory, num_views=6, width=40, height=32, num_points=100, samples_per_axis=1)


@pytest.fixture(scope="module")
def scene(scene_folder):
    return normalized(read_scene(scene_folder))


@pytest.fixture(scope="module")
def trained(scene):
    """A splat with colors that depend on the view, in the scene's frame."""
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), TrainConfig(max_steps=60, sh_degree_every=2))
    trainer.train_until(12)
    generator = torch.Generator().manual_seed(0)
    noisy = dict(trainer.gaussians.parameters())
    noisy["sh_rest"] = 0.05 * torch.randn(noisy["sh_rest"].shape, generator=generator)
    trainer = SplatTrainer(scene, trainer.views, trainer.config, gaussians=Gaussians(**noisy))
    trainer.step = 12
    return trainer


def _assert_same_picture(scene, trained, gaussians):
    started = new_trainer(
        scene, scene.views, TrainConfig(max_steps=60, sh_degree_every=1), device="cpu", gaussians=gaussians
    )
    for view in scene.views[:2]:
        before, after = trained.render(view.camera), started.render(view.camera)
        torch.testing.assert_close(after.rgb, before.rgb, atol=2e-4, rtol=0)
    assert float((before.rgb - before.rgb.mean()).abs().max()) > 0.05


def _gsplat_splats(gaussians, rows=slice(None)):
    return {
        "means": gaussians.means[rows],
        "scales": gaussians.log_scales[rows],
        "quats": gaussians.quats_wxyz[rows],
        "opacities": gaussians.logit_opacities[rows],
        "sh0": gaussians.sh0[rows],
        "shN": gaussians.sh_rest[rows],
    }


def test_a_ply_in_colmaps_frame_gives_the_same_picture(scene, trained, tmp_path):
    path = tmp_path / "splat.ply"
    write_ply(path, transformed(trained.gaussians, np.linalg.inv(scene.T_scene_colmap)))
    assert not np.allclose(scene.T_scene_colmap, np.eye(4), atol=0.1)
    _assert_same_picture(scene, trained, start_gaussians(RunSettings(start=str(path)), scene))


def test_a_file_with_a_world_offset_is_that_much_farther_away(scene, trained, tmp_path):
    offset = (500_000.0, 4_000_000.0, 100.0)
    T_far_colmap = similarity(1.0, np.eye(3), np.array(offset))
    far = dataclasses.replace(scene, T_scene_colmap=scene.T_scene_colmap @ inverse(T_far_colmap))
    raw = transformed(trained.gaussians, np.linalg.inv(scene.T_scene_colmap))
    write_splats(tmp_path / "a.ply", SplatFile(gaussians=raw, offset=offset))
    started = start_gaussians(RunSettings(start=str(tmp_path / "a.ply")), far)
    torch.testing.assert_close(started.means, trained.gaussians.means, atol=1e-5, rtol=0)


def _gsplats_frame(scene_in_colmap):
    """As gsplat's trainer normalizes: from the world's origin, with all points."""
    T_upright = similarity_from_cameras([view.camera.T_world_cam for view in scene_in_colmap.views])
    return principal_axes(transform_points(T_upright, scene_in_colmap.points.p_world)) @ T_upright


def test_ranks_of_gsplat_are_joined_and_brought_from_its_frame(scene_folder, scene, trained, tmp_path):
    raw = transformed(trained.gaussians, np.linalg.inv(scene.T_scene_colmap))
    gaussians, half = transformed(raw, _gsplats_frame(read_scene(scene_folder))), len(raw) // 2
    for rank, rows in enumerate((slice(None, half), slice(half, None))):
        content = {"step": 29_999, "splats": _gsplat_splats(gaussians, rows)}
        torch.save(content, tmp_path / f"ckpt_29999_rank{rank}.pt")
    torch.save({"step": 6999, "splats": _gsplat_splats(gaussians)}, tmp_path / "ckpt_6999_rank0.pt")
    for rank in (0, 1):
        config = RunSettings(start=str(tmp_path / f"ckpt_29999_rank{rank}.pt"))
        joined = start_gaussians(config, scene)
        torch.testing.assert_close(joined.means, trained.gaussians.means, atol=1e-5, rtol=0)
        _assert_same_picture(scene, trained, joined)
    torch.save({"step": 1, "splats": _gsplat_splats(raw)}, tmp_path / "unnormalized.pt")
    config = RunSettings(start=str(tmp_path / "unnormalized.pt"), start_frame="colmap")
    _assert_same_picture(scene, trained, start_gaussians(config, scene))
    (tmp_path / "ckpt_29999_rank0.pt").unlink()
    with pytest.raises(InputError, match="ranks 0 are missing"):
        start_gaussians(RunSettings(start=str(tmp_path / "ckpt_29999_rank1.pt")), scene)


def test_checkpoints_of_this_project_are_found(scene, trained, tmp_path):
    trained.save(tmp_path / "run" / "checkpoints" / "step_000012")
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoints" / "step_000012"):
        found = start_gaussians(RunSettings(start=str(path)), scene)
        _assert_same_picture(scene, trained, found)
    other = dataclasses.replace(scene, views=scene.views[:3])
    with pytest.raises(InputError, match="another scene"):
        start_gaussians(RunSettings(start=str(tmp_path / "run")), other)


class Harmful:
    def __reduce__(self):
        return (print, ("harm",))


def test_what_cannot_be_read_safely_is_refused_in_a_sentence(scene, tmp_path, monkeypatch, capsys):
    torch.save({"step": 1, "splats": Harmful()}, tmp_path / "harmful.pt")
    torch.save({"step": 1, "splats": {"means": torch.zeros(3, 3)}}, tmp_path / "partial.pt")
    (tmp_path / "text.pt").write_text("nothing")
    for name in ("harmful", "partial", "text"):
        with pytest.raises(InputError, match=f"{name}.pt is not a checkpoint of gsplat"):
            start_gaussians(RunSettings(start=str(tmp_path / f"{name}.pt")), scene)
    assert "harm" not in capsys.readouterr().out
    for path, words in (
        (tmp_path / "missing.pt", "missing.pt"),
        (tmp_path / "missing.ply", "missing.ply"),
        (tmp_path, "holds no checkpoint"),
        (tmp_path / "text.txt", "ends in"),
    ):
        with pytest.raises(InputError, match=words):
            start_gaussians(RunSettings(start=str(path)), scene)
    monkeypatch.setattr("torch.__version__", "2.9.1")
    with pytest.raises(InputError, match=r"needs torch 2\.10 or newer"):
        start_gaussians(RunSettings(start=str(tmp_path / "partial.pt")), scene)


def test_a_run_goes_on_from_a_splat_and_resumes(scene_folder, scene, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 2)
    path = tmp_path / "splat.ply"
    write_ply(path, transformed(trained.gaussians, np.linalg.inv(scene.T_scene_colmap)))
    settings = RunSettings(
        scene=str(scene_folder),
        fixer=ViewFixerConfig(model="none"),
        start=str(path),
        max_steps=12,
        rounds=RoundsConfig(num_rounds=1),
        num_novel=2,
        split="every:3",
    )
    config = progressive_config(resolved(settings, "cpu"))
    assert config.train.sh_degree_every == 1
    assert config.validation.fraction == 0
    assert config.train.learning_rates.means == pytest.approx(1.6e-5)
    folders = [RunFolder(tmp_path / name) for name in ("whole", "part")]
    list(Experiment(settings, folders[0]).run())
    list(Experiment(settings, folders[1]).run(stop_at=8))
    list(Experiment(settings, folders[1], resume=True).run())
    one, other = ((folder.path / "loop.ply").read_bytes() for folder in folders)
    assert one == other


def write_as_splatfacto_exports(path, gaussians):
    """Byte for byte the layout of `ns-export gaussian-splat` of nerfstudio 1.1.5."""
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(45)), "opacity"]
    names += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    rest = torch.zeros(len(gaussians), 15, 3)
    rest[:, : gaussians.sh_rest.shape[1]] = gaussians.sh_rest
    columns = [gaussians.means, torch.zeros(len(gaussians), 3), gaussians.sh0[:, 0], rest.transpose(1, 2).flatten(1)]
    columns += [gaussians.logit_opacities[:, None], gaussians.log_scales, gaussians.quats_wxyz]
    header = "ply\nformat binary_little_endian 1.0\ncomment Generated by Nerstudio 1.1.5\ncomment Vertical Axis: z\n"
    header += f"element vertex {len(gaussians)}\n" + "".join(f"property float {name}\n" for name in names)
    values = torch.cat(columns, dim=1).detach().numpy().astype("<f4")
    path.write_bytes((header + "end_header\n").encode() + values.tobytes())


def test_splatfactos_export_comes_back_from_nerfstudios_frame(scene, trained, tmp_path):
    turned = np.array([[1.0, 0, 0, 0.4], [0, 0, 1, -0.2], [0, -1, 0, 0.3]])
    scale = 0.37
    T_file_colmap = np.diag([scale, scale, scale, 1.0]) @ np.vstack([turned, [0, 0, 0, 1]])
    in_file = transformed(trained.gaussians, T_file_colmap @ np.linalg.inv(scene.T_scene_colmap))
    path = tmp_path / "splat.ply"
    write_as_splatfacto_exports(path, in_file)
    config = RunSettings(start=str(path))
    beside = tmp_path / "dataparser_transforms.json"
    beside.write_text(json.dumps({"transform": turned.tolist(), "scale": scale}))
    _assert_same_picture(scene, trained, start_gaussians(config, scene))
    beside.write_text('{"transform": [[1, 0]], "scale": 1}')
    with pytest.raises(InputError, match=r"dataparser_transforms.json is not what nerfstudio writes"):
        start_gaussians(config, scene)
    beside.unlink()
    np.testing.assert_allclose(
        start_gaussians(config, scene).means.detach().numpy(),
        transformed(in_file, scene.T_scene_colmap).means.detach().numpy(),
        atol=1e-5,
    )
