"""Trainings on a fake CUDA device: every option through density control, evaluation, a save, a load and more steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splat_recon import (
    AdcConfig,
    BilateralGridConfig,
    DepthConfig,
    ExposureConfig,
    McmcConfig,
    PoseConfig,
    Scene,
    SplatTrainer,
    TrainConfig,
    TrainingView,
    ViewSet,
)
from splat_recon.errors import DivergedError
from splat_recon.evaluate import evaluate
from splat_recon.generators import load_generator
from splat_recon.views.on_device import ImagesOnDevice
from splat_render import Gaussians
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


QUIET = replace(ADC, refine_start=100, refine_every=100)
WAITING_STEPS = {
    "adc": (TrainConfig(strategy=QUIET, **BASE), 0),
    "mcmc": (TrainConfig(strategy=replace(MCMC, refine_start=100, refine_every=100), **BASE), 0),
    "masks": (TrainConfig(strategy=QUIET, random_background=True, dropout=0.2, batch_size=2, **BASE), 0),
    "tones": (TrainConfig(strategy=QUIET, appearance=BilateralGridConfig(), depth=DepthConfig(), **BASE), 0),
    "exposure": (TrainConfig(strategy=QUIET, appearance=ExposureConfig(), visible_adam=True, **BASE), 0),
    # The six numbers that move a camera, which lives on the CPU.
    "poses": (TrainConfig(strategy=QUIET, pose=PoseConfig(start=0), **BASE), 1),
}
"""Settings, and how many times a step may wait for the device in this project's code."""


@pytest.mark.parametrize("name", WAITING_STEPS)
def test_steps_between_two_lines_of_the_history_do_not_wait_for_the_device(name: str, scene: Scene):
    config, allowed = WAITING_STEPS[name]
    config, scene = replace(config, log_every=100), masked(scene) if name == "masks" else scene
    with FakeCuda() as gpu:
        trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config, device="cuda")
        trainer.train_until(5)  # Every photo was seen.
        gpu.traffic.clear()
        trainer.train_until(11)
    # At the end of the call one transfer tells whether all losses were finite.
    assert gpu.traffic.waits(ours=True) == 6 * allowed + 1, gpu.traffic.report(6)
    assert gpu.traffic.number("upload") == 0, gpu.traffic.report(6)
    # gsplat's own: an inverse of a matrix and the number of intersections, for each photo.
    assert gpu.traffic.waits(ours=False) == 2 * 6 * config.batch_size, gpu.traffic.report(6)


@pytest.mark.parametrize(
    "options", [{}, {"visible_adam": True}, {"strategy": MCMC, "appearance": ExposureConfig()}, {"pose": POSE}]
)
def test_a_loss_that_is_not_finite_changes_nothing_from_its_step_on(options: dict[str, Any], scene: Scene):
    broken = [
        TrainingView(camera=view.camera, rgb=torch.full((15, 18, 3), torch.nan), name=view.name) for view in scene.views
    ]
    with FakeCuda():
        values: dict[str, Any] = {"strategy": QUIET, **BASE, "log_every": 50, **options}
        trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), TrainConfig(**values), device="cuda")
        trainer.train_until(3)
        before, learned = trainer.gaussians.clone(), {k: v.clone() for k, v in trainer._parts.tensors().items()}
        trainer.views = ViewSet(broken)
        with pytest.raises(DivergedError, match=r"became nan between steps 3 and [47]"):
            trainer.train_until(7)
        with pytest.raises(DivergedError):
            trainer.save(Path("nowhere"))
        for name, tensor in before.parameters().items():
            assert torch.equal(trainer.gaussians.parameters()[name], tensor), name
        for name, tensor in trainer._parts.tensors().items():
            assert name.endswith("num_updates") or torch.equal(tensor, learned[name]), name


def test_images_stay_on_the_device_within_the_budget(scene: Scene):
    view = masked(scene).views[0]
    views = ViewSet.from_views(masked(scene).views).views
    with FakeCuda() as gpu:
        images = ImagesOnDevice("cuda", max_bytes=2 * 4 * 15 * 18)
        assert torch.equal(images.rgb(views[0]).cpu(), views[0].rgb)
        expected = views[0].pixel_weight
        found = images.pixel_weight(views[0])
        assert expected is not None
        assert found is not None
        assert torch.equal(found.cpu(), expected)
        assert images.num_bytes == view.rgb_u8.nbytes + 15 * 18, "bytes, not floats"
        for one in views:
            images.rgb(one)
        assert images.num_bytes <= images.max_bytes
        gpu.traffic.clear()
        images.rgb(views[0])
        assert gpu.traffic.report() == "no traffic"
        images.rgb(views[3])
        assert gpu.traffic.waits() == 0
        assert gpu.traffic.number("background") == 1, "what does not fit travels as bytes, and nobody waits"
        made = TrainingView(camera=view.camera, rgb=torch.rand(15, 18, 3, device="cuda"))
        assert images.rgb(made) is made.rgb


def test_a_run_goes_on_on_another_kind_of_device(scene: Scene, tmp_path: Path):
    views = lambda: ViewSet.from_views(scene.views)  # noqa: E731
    trainer = SplatTrainer(scene, views(), CONFIGS["mcmc"])
    trainer.train_until(5)
    trainer.save(tmp_path / "step_000005")
    with FakeCuda():
        loaded = SplatTrainer.load(tmp_path / "step_000005", scene, views(), device="cuda")
        assert loaded.step == 5
        assert_same_splats(loaded.gaussians.to("cpu"), trainer.gaussians)
        loaded.train_until(9)
        loaded.save(tmp_path / "step_000009")
        trained = loaded.gaussians.to("cpu")
    again = SplatTrainer.load(tmp_path / "step_000009", scene, views())
    assert again.step == 9
    assert_same_splats(again.gaussians, trained)
    again.train_until(16)
    assert again.step == 16
    assert not torch.equal(again.gaussians.means, trained.means) or len(again.gaussians) != len(trained)
    assert all(torch.isfinite(values).all() for values in again.gaussians.parameters().values())


def assert_same_splats(found: Gaussians, expected: Gaussians) -> None:
    for name, values in expected.parameters().items():
        assert torch.equal(found.parameters()[name].detach(), values.detach()), name


def test_a_generator_of_another_kind_is_seeded_by_the_saved_state():
    state = torch.arange(16, dtype=torch.uint8)
    first, second = torch.Generator(), torch.Generator()
    for generator in (first, second):
        load_generator(generator, state)
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))
    load_generator(second, state + 1)
    assert not torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))


def test_sparse_gradients_with_poses_are_refused():
    with pytest.raises(ValueError, match="sparse_grad does not go with pose"):
        TrainConfig(packed=True, sparse_grad=True, pose=PoseConfig())
