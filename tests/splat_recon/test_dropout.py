"""Dropout of Gaussians: what is left out, what follows for the rest, and what it does for few photos."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splat_recon import AdcConfig, SplatTrainer, SyntheticConfig, TrainConfig, ViewSet, generate_scene, mcmc_config
from splat_recon.config import FEW_PHOTOS, regularized_for
from splat_recon.evaluate import evaluate
from splat_recon.gaussians.dropout import dropped
from splat_render import Gaussians


def _gaussians(opacity: float, num: int = 4000) -> Gaussians:
    logit = torch.full((num,), opacity).logit().requires_grad_()
    return Gaussians(
        means=torch.zeros(num, 3),
        log_scales=torch.zeros(num, 3),
        quats_wxyz=torch.ones(num, 4),
        logit_opacities=logit,
        sh0=torch.zeros(num, 1, 3),
        sh_rest=torch.zeros(num, 0, 3),
    )


def test_the_share_is_transparent_and_the_mean_opacity_stays():
    some = dropped(_gaussians(0.3), 0.25, torch.Generator().manual_seed(1))
    gone = some.opacities < 1 / 255
    assert 0.22 < float(gone.float().mean()) < 0.28
    torch.testing.assert_close(some.opacities[~gone], torch.full_like(some.opacities[~gone], 0.4))
    assert float(some.opacities.detach().mean()) == pytest.approx(0.3, abs=0.01)


def test_gradients_reach_those_that_stay_only():
    gaussians = _gaussians(0.3, num=50)
    some = dropped(gaussians, 0.5, torch.Generator().manual_seed(1))
    some.opacities.sum().backward()
    gradient = gaussians.logit_opacities.grad
    assert gradient is not None
    assert torch.equal(gradient != 0, some.opacities.detach() > 1 / 255)


def test_opaque_gaussians_stay_finite_and_no_share_changes_nothing():
    gaussians = _gaussians(0.999, num=50)
    assert dropped(gaussians, 0.0, torch.Generator()) is gaussians
    assert dropped(gaussians, 0.5, torch.Generator().manual_seed(1)).logit_opacities.isfinite().all()


def test_a_share_of_one_is_refused():
    with pytest.raises(ValueError, match="dropout must be below 1"):
        TrainConfig(dropout=1.0)


def _trainer(dropout: float, *, max_steps: int, size: int = 48) -> tuple[SplatTrainer, ViewSet]:
    scene = generate_scene(3, SyntheticConfig(num_views=12, width=size, height=size * 3 // 4))
    views = ViewSet.from_views(scene.views[::4])
    strategy = AdcConfig(reset_every=0, cap_max=4000)
    config = replace(TrainConfig(strategy=strategy, seed=1).scaled_to(max_steps), dropout=dropout)
    return SplatTrainer(scene, views, config), views


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path: Path):
    whole, _ = _trainer(0.4, max_steps=40)
    whole.train_until(40)
    part, views = _trainer(0.4, max_steps=40)
    part.train_until(17)
    part.save(tmp_path / "half")
    resumed = SplatTrainer.load(tmp_path / "half", part.scene, views)
    resumed.train_until(40)
    for name, tensor in whole.gaussians.parameters().items():
        assert torch.equal(tensor, resumed.gaussians.parameters()[name]), name
    without, _ = _trainer(0.0, max_steps=40)
    without.train_until(40)
    assert not torch.equal(without.gaussians.means, whole.gaussians.means)


def test_few_photos_overfit_less():
    scores = {}
    for dropout in (0.0, 0.1):
        trainer, _ = _trainer(dropout, max_steps=600, size=64)
        trainer.train_until(600)
        held_out = [view for index, view in enumerate(trainer.scene.views) if index % 4]
        scores[dropout] = evaluate(lambda camera, of=trainer: of.render(camera).rgb, held_out).psnr
    assert scores[0.1] > scores[0.0] + 0.1, scores


def test_few_photos_are_regularized_and_what_was_asked_for_stays():
    few = regularized_for(FEW_PHOTOS, TrainConfig())
    assert (few.dropout, few.opacity_reg, few.scale_reg) == (0.1, 0.01, 0.01)
    assert regularized_for(FEW_PHOTOS + 1, TrainConfig()) == TrainConfig()
    asked = replace(mcmc_config(), opacity_reg=0.5)
    assert regularized_for(3, asked) == replace(asked, dropout=0.1)
