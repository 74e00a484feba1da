"""Trainings on a fake CUDA device: every option through density control, evaluation, a save, a load and more steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splat_recon.config import AdcConfig, McmcConfig, TrainConfig
from splat_recon.evaluate import evaluate
from splat_recon.per_photo.configs import BilateralGridConfig, DepthConfig, ExposureConfig, PoseConfig
from splat_recon.scene.scene import Scene
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import TrainingView, ViewSet
from support.fake_cuda import FakeCuda
from support.rendered_scenes import ball, photographed, ring_camera

ADC = AdcConfig(refine_start=2, refine_every=4, refine_stop=11, reset_every=0, grow_grad2d=2e-5, cap_max=70)
MCMC = McmcConfig(refine_start=2, refine_every=4, refine_stop=11, cap_max=50, growth=0.2)
BASE: dict[str, Any] = {"max_steps": 16, "log_every": 4, "sh_degree_every": 4}
POSE = PoseConfig(start=1)

CONFIGS = {
    "adc": TrainConfig(strategy=ADC, **BASE),
    "absgrad": TrainConfig(strategy=replace(ADC, absgrad=True, revised_opacity=True), antialiased=True, **BASE),
    "resets": TrainConfig(strategy=replace(ADC, reset_every=3), **BASE),
    "mcmc": TrainConfig(strategy=MCMC, opacity_reg=0.01, scale_reg=0.01, init_scale=0.3, **BASE),
    "masks": TrainConfig(strategy=ADC, random_background=True, dropout=0.2, batch_size=2, **BASE),
    "photos": TrainConfig(strategy=ADC, pose=POSE, appearance=ExposureConfig(), depth=DepthConfig(), **BASE),
    "bilateral": TrainConfig(
        strategy=ADC, appearance=BilateralGridConfig(width=4, height=4, levels=2), sh_degree=0, **BASE
    ),
    "packed": TrainConfig(strategy=ADC, packed=True, pose=POSE, **BASE),
    "sparse": TrainConfig(strategy=ADC, packed=True, sparse_grad=True, **BASE),
    "sparse-mcmc": TrainConfig(strategy=MCMC, packed=True, sparse_grad=True, batch_size=2, dropout=0.1, **BASE),
    "visible": TrainConfig(strategy=ADC, visible_adam=True, **BASE),
}


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A ball of few Gaussians in small photos."""
    return photographed(ball(40), [ring_camera(index, 4, width=18, height=15) for index in range(4)])


def masked(scene: Scene) -> Scene:
    """The same with a mask on each photo."""
    views = [replace(view, mask=np.indices(view.rgb_u8.shape[:2])[1] < 13) for view in scene.views]
    return replace(scene, views=tuple(views))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_trains_is_saved_and_goes_on(name: str, scene: Scene, tmp_path: Path):
    config, scene = CONFIGS[name], masked(scene) if name == "masks" else scene
    views = lambda: ViewSet.from_views(scene.views)  # noqa: E731
    with FakeCuda():
        trainer = SplatTrainer(scene, views(), config, device="cuda")
        trainer.train_until(12)
        assert trainer.gaussians.means.is_cuda
        assert all(bool(torch.isfinite(tensor).all()) for tensor in trainer.gaussians.parameters().values())
        if not config.sparse_grad:
            assert len(trainer.gaussians) != 40, "density control did something"
        before = evaluate(lambda camera: trainer.render(camera).rgb, scene.views)
        trainer.save(tmp_path / "step_000012")
        loaded = SplatTrainer.load(tmp_path / "step_000012", scene, views(), device="cuda")
        after = evaluate(lambda camera: loaded.render(camera).rgb, scene.views)
        for one in (trainer, loaded):
            one.train_until(16)
    assert after.psnr == before.psnr
    assert [record.step for record in loaded.history] == [4, 8, 12, 16]
    for field, tensor in trainer.gaussians.parameters().items():
        torch.testing.assert_close(loaded.gaussians.parameters()[field], tensor, msg=field)


def losses(scene: Scene, config: TrainConfig, device: str) -> list[float]:
    """Of the first steps."""
    config = replace(config, log_every=1)
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config, device=device)
    trainer.train_until(4)
    return [record.loss for record in trainer.history]


@pytest.mark.parametrize("name", ["adc", "absgrad", "masks", "photos", "bilateral"])
def test_losses_are_those_of_the_cpu(name: str, scene: Scene):
    # No density control yet, and no numbers drawn on the device: those differ from the CPU's.
    config = replace(CONFIGS[name], dropout=0.0, strategy=replace(ADC, refine_start=10))
    scene = masked(scene) if name == "masks" else scene
    expected = losses(scene, config, "cpu")
    with FakeCuda():
        found = losses(scene, config, "cuda")
    assert found == pytest.approx(expected, rel=2e-4)


def test_gradients_of_the_first_step_are_those_of_the_cpu(scene: Scene):
    def gradients(device: str) -> dict[str, torch.Tensor]:
        trainer = SplatTrainer(
            scene, ViewSet.from_views(scene.views), CONFIGS["adc"], device=device, gaussians=ball(30, 1)
        )
        kept: dict[str, torch.Tensor] = {}

        def keep(step: int, visible: torch.Tensor | None = None, **_: object) -> None:
            for name, parameter in trainer._optimizer.gaussians.parameters().items():
                assert parameter.grad is not None
                kept[name] = parameter.grad.cpu()

        trainer._optimizer.step = keep
        trainer.train_until(1)
        return kept

    expected = gradients("cpu")
    with FakeCuda():
        found = gradients("cuda")
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 5e-3 * float(gradient.norm()), name


def test_views_without_a_photo_train_too(scene: Scene):
    """As novel views do that a fixer has made."""
    made = [
        TrainingView(camera=view.camera, rgb=torch.rand(15, 18, 3), pixel_weight=torch.rand(15, 18), weight=0.3)
        for view in scene.views
    ]
    with FakeCuda():
        views = ViewSet.from_views(scene.views).mixed_with(ViewSet(made), 0.5)
        trainer = SplatTrainer(scene, views, CONFIGS["adc"], device="cuda")
        trainer.train_until(8)
        clone = copy.deepcopy(trainer.gaussians.means)
        assert clone.is_cuda
