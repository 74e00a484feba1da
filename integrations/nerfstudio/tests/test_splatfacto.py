"""The method around splatfacto: on a CPU with a stand-in for gsplat's rasterizer, on CUDA with the real one."""

from __future__ import annotations

import copy
from pathlib import Path

import difix3d_nerfstudio.entry  # noqa: F401
import pytest
import torch

from conftest import train


def soft_discs(means, quats, scales, opacities, colors, viewmats, Ks, width, height, render_mode, **_):
    """Differentiable in means, opacities and colors: every Gaussian a round disc of its mean scale, no sorting."""
    p_cam = means @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]
    z = p_cam[:, 2].clamp_min(0.05)
    means2d = p_cam[:, :2] / z[:, None] * Ks[0].diagonal()[:2] + Ks[0, :2, 2]
    means2d = means2d[None]
    means2d.retain_grad() if means2d.requires_grad else None
    radius = (scales.mean(dim=1) / z * Ks[0, 0, 0]).clamp(1, 20)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    squared = (x[..., None] - means2d[0, :, 0]) ** 2 + (y[..., None] - means2d[0, :, 1]) ** 2
    weight = opacities.reshape(-1) * torch.exp(-squared / (2 * radius**2)) * (p_cam[:, 2] > 0.05)
    alpha = 1 - torch.exp(-weight.sum(-1, keepdim=True))
    base = colors[:, 0] * 0.2820948 + 0.5 if colors.ndim == 3 else colors
    rgb = alpha * (weight @ base) / weight.sum(-1, keepdim=True).clamp_min(1e-6)
    channels = (
        [rgb] if render_mode == "RGB" else [rgb, (weight @ z[:, None]) / weight.sum(-1, keepdim=True).clamp_min(1e-6)]
    )
    meta = {
        "means2d": means2d, "radii": radius.int()[None], "width": width, "height": height, "n_cameras": 1,
        "gaussian_ids": None,
    }  # fmt: skip
    return torch.cat(channels, dim=-1)[None], alpha[None], meta


@pytest.fixture
def splatfacto(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from difix3d_nerfstudio.methods import difix3d_splat
    from nerfstudio.models import splatfacto as module

    monkeypatch.setattr(module, "rasterization", soft_discs)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(module, "get_viewmat", getattr(module.get_viewmat, "__wrapped__", module.get_viewmat))
    config = copy.deepcopy(difix3d_splat.config)
    config.machine.device_type = "cpu"
    config.vis = "tensorboard"
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "out", "splat", "t"
    config.data = config.pipeline.datamanager.data = scene
    config.max_num_iterations, config.steps_per_save = 20, 1000
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    parser = config.pipeline.datamanager.dataparser
    parser.downscale_factor, parser.eval_mode = 2, "filename"
    parser.orientation_method = parser.center_method = "none"
    parser.auto_scale_poses = False
    config.pipeline.model.num_downscales = 0
    config.pipeline.model.sh_degree = 1
    config.pipeline.model.use_absgrad = False
    config.pipeline.model.warmup_length = 10_000
    config.pipeline.rounds.first, config.pipeline.rounds.every = 5, 8
    config.pipeline.fixer.gate = "off"
    config.pipeline.targets.num_views = 2
    return config


def test_splats_train_on_novel_views_and_go_on_learning_after_a_resume(splatfacto):
    first = train(copy.deepcopy(splatfacto))
    assert first.pipeline.num_rounds == 2
    assert len(first.pipeline.novel) == 2
    means = first.pipeline.model.means.detach().clone()
    rest = copy.deepcopy(splatfacto)
    rest.load_dir, rest.max_num_iterations = first.checkpoint_dir, 5
    second = train(rest)
    moved = (second.pipeline.model.means.detach() - means).abs().max()
    assert moved > 0  # splatfacto 1.1.5 itself steps the parameters that it has thrown away.
    optimizer = second.optimizers.optimizers["means"]
    assert optimizer.param_groups[0]["params"][0] is second.pipeline.model.gauss_params["means"]
    (state,) = optimizer.state.values()
    assert int(state["step"]) == 25


def test_the_splat_can_be_exported(splatfacto):
    from difix3d_nerfstudio.models import DifixSplatModel
    from nerfstudio.models.splatfacto import SplatfactoModel

    assert issubclass(DifixSplatModel, SplatfactoModel)  # ns-export gaussian-splat insists on it.
    assert splatfacto.pipeline.model._target is DifixSplatModel


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_splatfacto_trains_on_cuda(scene: Path, tmp_path: Path):
    from difix3d_nerfstudio.methods import difix3d_splat

    config = copy.deepcopy(difix3d_splat.config)
    config.vis, config.output_dir, config.timestamp, config.experiment_name = "tensorboard", tmp_path, "t", "cuda"
    config.data = config.pipeline.datamanager.data = scene
    config.max_num_iterations = 40
    config.pipeline.datamanager.dataparser.downscale_factor = 1
    config.pipeline.rounds.first, config.pipeline.rounds.every = 10, 10
    trainer = train(config)
    assert trainer.pipeline.num_rounds >= 3
