"""The mean of the Gaussians over a training's last steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from splat_recon.averaging import AVERAGE_EVERY
from splat_recon.config import TrainConfig
from splat_recon.scene.scene import Scene
from splat_recon.scene.synthetic import SyntheticConfig, generate_scene
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import ViewSet

CONFIG = dataclasses.replace(TrainConfig().scaled_to(20), average_last=0.5)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return generate_scene(5, SyntheticConfig(num_views=3, width=32, height=24, num_points=40, layout="table"))


def trainer_of(scene: Scene, config: TrainConfig) -> SplatTrainer:
    return SplatTrainer(scene, ViewSet.from_views(scene.views), config)


def test_the_last_step_leaves_the_mean_over_the_last_steps(scene: Scene):
    plain = trainer_of(scene, dataclasses.replace(CONFIG, average_last=0.0))
    passed = []
    for step in range(1, 21):
        plain.train_until(step)
        if step > 10 and (20 - step) % AVERAGE_EVERY == 0:
            passed.append(plain.gaussians.clone())
    averaged = trainer_of(scene, CONFIG)
    averaged.train_until(19)
    plain_19 = trainer_of(scene, dataclasses.replace(CONFIG, average_last=0.0))
    plain_19.train_until(19)
    assert torch.equal(averaged.gaussians.means, plain_19.gaussians.means)
    averaged.train_until(20)
    assert len(passed) == 2
    for name in ("means", "log_scales", "logit_opacities", "sh0"):
        mean = torch.stack([getattr(gaussians, name) for gaussians in passed]).mean(dim=0)
        torch.testing.assert_close(getattr(averaged.gaussians, name), mean, rtol=1e-5, atol=1e-6)
        assert not torch.equal(mean, getattr(passed[-1], name))


def test_a_stop_changes_no_bit_of_the_mean(scene: Scene, tmp_path: Path):
    whole, part = trainer_of(scene, CONFIG), trainer_of(scene, CONFIG)
    whole.train_until(20)
    part.train_until(17)
    part.save(tmp_path / "checkpoint")
    again = SplatTrainer.load(tmp_path / "checkpoint", scene, ViewSet.from_views(scene.views))
    again.train_until(20)
    for name, values in whole.gaussians.parameters().items():
        assert torch.equal(values, again.gaussians.parameters()[name]), name


def test_nothing_is_averaged_while_density_control_works(scene: Scene):
    strategy = dataclasses.replace(CONFIG.strategy, refine_stop=20)
    config = dataclasses.replace(CONFIG, strategy=strategy)
    averaged, plain = trainer_of(scene, config), trainer_of(scene, dataclasses.replace(config, average_last=0.0))
    averaged.train_until(20)
    plain.train_until(20)
    assert torch.equal(averaged.gaussians.means, plain.gaussians.means)
