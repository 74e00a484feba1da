import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from splat_recon import (
    AdcConfig,
    InputError,
    McmcConfig,
    Scene,
    SplatTrainer,
    SyntheticConfig,
    TrainConfig,
    TrainingView,
    ViewMixture,
    ViewSet,
    downscaled,
    generate_scene,
    mcmc_config,
)
from splat_recon.errors import DivergedError
from splat_recon.evaluate import evaluate
from splat_render import Gaussians

ADC = TrainConfig(
    max_steps=60,
    sh_degree_every=8,
    sh_degree=2,
    log_every=5,
    random_background=True,
    strategy=AdcConfig(refine_start=4, refine_every=5, refine_stop=50, reset_every=18, cap_max=450),
)
MCMC = replace(
    mcmc_config(),
    max_steps=60,
    sh_degree_every=8,
    log_every=5,
    strategy=McmcConfig(cap_max=400, refine_start=4, refine_every=5),
)


@cache
def _scene() -> Scene:
    return generate_scene(3, SyntheticConfig(num_views=5, width=48, height=36, num_points=300, layout="table"))


def _trainer(config: TrainConfig, **options) -> SplatTrainer:
    return SplatTrainer(_scene(), ViewSet.from_views(_scene().views), config, **options)


def _assert_same(a: SplatTrainer, b: SplatTrainer) -> None:
    assert a.step == b.step
    assert a.history == b.history
    for name, tensor in a.gaussians.parameters().items():
        assert torch.equal(tensor, b.gaussians.parameters()[name]), name


@pytest.mark.parametrize("config", [ADC, MCMC], ids=["adc", "mcmc"])
def test_saving_and_loading_on_the_way_changes_nothing(config: TrainConfig, tmp_path: Path):
    whole = _trainer(config)
    whole.train_until(40)
    parts = _trainer(config)
    for step in (7, 21, 40):
        parts.train_until(step)
        parts.save(tmp_path / f"step_{step:06d}")
        parts = SplatTrainer.load(tmp_path / f"step_{step:06d}", _scene(), ViewSet.from_views(_scene().views))
    _assert_same(whole, parts)
    assert len(whole.gaussians) > 300
    assert len(whole.history) == 8


def test_how_the_steps_are_divided_changes_nothing():
    whole, parts = _trainer(ADC), _trainer(ADC)
    whole.train_until(25)
    for step in (1, 2, 3, 11, 11, 5, 25):
        parts.train_until(step)
    _assert_same(whole, parts)


@pytest.mark.parametrize(("config", "gain"), [(TrainConfig(), 7.0), (mcmc_config(), 3.0)], ids=["adc", "mcmc"])
def test_training_brings_renders_close_to_the_photos(config: TrainConfig, gain: float):
    config = config.scaled_to(300)
    config = replace(config, strategy=replace(config.strategy, refine_every=25, cap_max=1500))
    trainer = _trainer(config)
    before = evaluate(lambda camera: trainer.render(camera).rgb, _scene().views)
    trainer.train_until(300)
    after = evaluate(lambda camera: trainer.render(camera).rgb, _scene().views)
    assert after.psnr > before.psnr + gain
    assert after.ssim > before.ssim + 0.1
    assert 300 < len(trainer.gaussians) <= 1500


def test_the_scale_of_the_world_does_not_matter():
    """Rates and thresholds follow the extent: a larger scene trains to the same images."""
    scene = _scene()
    factor = 4.0  # A power of two, so that scaling is exact.
    views = []
    for view in scene.views:
        T_world_cam = view.camera.T_world_cam.copy()
        T_world_cam[:3, 3] *= factor
        views.append(replace(view, camera=view.camera.with_pose(T_world_cam)))
    points = replace(scene.points, p_world=scene.points.p_world * factor)
    large = replace(scene, views=tuple(views), points=points)
    config = replace(ADC, near=1e-4)
    small_trainer = _trainer(config)
    large_trainer = SplatTrainer(large, ViewSet.from_views(large.views), config)
    small_trainer.train_until(8)
    large_trainer.train_until(8)
    torch.testing.assert_close(
        large_trainer.render(large.views[0].camera).rgb,
        small_trainer.render(scene.views[0].camera).rgb,
        atol=1e-2,
        rtol=0,
    )


def test_the_seed_decides():
    trainers = [_trainer(replace(ADC, seed=seed)) for seed in (1, 1, 2)]
    for trainer in trainers:
        trainer.train_until(3)
    _assert_same(trainers[0], trainers[1])
    assert not torch.equal(trainers[0].gaussians.means, trainers[2].gaussians.means)


def test_sh_degree_grows_on_schedule():
    trainer = _trainer(replace(ADC, sh_degree=1))
    assert trainer.sh_degree == 0
    trainer.train_until(8)
    assert trainer.sh_degree == 1
    trainer.train_until(17)
    assert trainer.sh_degree == 1


def test_views_of_weight_zero_teach_nothing_and_masked_pixels_neither():
    (view,) = ViewSet.from_views(_scene().views[:1]).views
    start = _trainer(ADC).gaussians.clone()
    size = view.rgb.shape[:2]
    for silent in (replace(view, weight=0.0), replace(view, pixel_weight=torch.zeros(size))):
        trainer = SplatTrainer(_scene(), ViewSet([silent]), ADC)
        trainer.train_until(3)
        assert torch.equal(trainer.gaussians.means, start.means)
        assert torch.equal(trainer.gaussians.sh0, start.sh0)


def test_training_goes_on_from_given_gaussians_and_leaves_them_alone():
    given = _trainer(ADC).gaussians.clone()
    means = given.means.clone()
    trainer = _trainer(ADC, gaussians=given)
    assert torch.equal(trainer.gaussians.means, means)
    trainer.train_until(4)
    assert torch.equal(given.means, means)
    assert not torch.equal(trainer.gaussians.means, means)


def test_a_loss_that_is_not_finite_stops_before_the_step():
    (view,) = ViewSet.from_views(_scene().views[:1]).views
    trainer = SplatTrainer(_scene(), ViewSet([view]), ADC)
    trainer.train_until(2)
    before = trainer.gaussians.clone()
    trainer.views = ViewSet([TrainingView(camera=view.camera, rgb=torch.full_like(view.rgb, math.nan))])
    with pytest.raises(DivergedError, match="step 2"):
        trainer.train_until(5)
    assert trainer.step == 2
    assert torch.equal(trainer.gaussians.means, before.means)


def test_gaussians_that_nobody_sees_do_not_stop_training():
    start = _trainer(ADC).gaussians.clone()
    far_away = Gaussians(**{**start.parameters(), "means": start.means + 1e6})
    trainer = _trainer(ADC, gaussians=far_away)
    trainer.train_until(30)
    assert trainer.step == 30
    assert len(trainer.gaussians) > 0


def test_an_empty_start_is_refused():
    nothing = _trainer(ADC).gaussians.mapped(lambda tensor: tensor[:0])
    with pytest.raises(InputError, match="no Gaussian to start from"):
        _trainer(ADC, gaussians=nothing)


def test_a_checkpoint_of_another_scene_or_other_views_is_refused(tmp_path: Path):
    trainer = _trainer(ADC)
    trainer.train_until(2)
    trainer.save(tmp_path / "step_000002")
    fewer = replace(_scene(), views=_scene().views[1:])
    with pytest.raises(InputError, match="another scene"):
        SplatTrainer.load(tmp_path / "step_000002", fewer, ViewSet.from_views(fewer.views))
    with pytest.raises(InputError, match="other views"):
        SplatTrainer.load(tmp_path / "step_000002", _scene(), ViewSet.from_views(_scene().views[1:]))


def test_the_schedule_scales_with_documented_bounds():
    short = TrainConfig().scaled_to(3000)
    assert isinstance(short.strategy, AdcConfig)
    assert (short.max_steps, short.sh_degree_every) == (3000, 100)
    assert (short.strategy.refine_start, short.strategy.refine_stop) == (50, 1500)
    assert (short.strategy.refine_every, short.strategy.reset_every) == (100, 3000)
    long = TrainConfig().scaled_to(60_000).strategy
    assert isinstance(long, AdcConfig)
    assert (long.refine_every, long.reset_every, long.refine_stop) == (200, 6000, 30_000)
    assert TrainConfig().scaled_to(30_000) == TrainConfig()
    mcmc = mcmc_config().scaled_to(1500).strategy
    assert isinstance(mcmc, McmcConfig)
    assert (mcmc.refine_every, mcmc.refine_stop) == (25, 1250)
    assert mcmc.growth == pytest.approx(1.05**5 - 1)
    assert mcmc_config().scaled_to(30_000) == mcmc_config()
    assert TrainConfig.from_dict(short.to_dict()) == short
    assert TrainConfig.from_dict(mcmc_config().to_dict()) == mcmc_config()


@pytest.mark.reference
def test_defaults_are_the_released_ones(reference_data: Path):
    import json

    released = json.loads((reference_data / "gsplat" / "config_defaults.json").read_text())
    default, ours = released["default"]["strategy"], TrainConfig().strategy
    assert isinstance(ours, AdcConfig)
    for field, name in {
        "grow_grad2d": "grow_grad2d",
        "grow_scale3d": "grow_scale3d",
        "prune_opacity": "prune_opa",
        "prune_scale3d": "prune_scale3d",
        "refine_start": "refine_start_iter",
        "refine_stop": "refine_stop_iter",
        "refine_every": "refine_every",
        "reset_every": "reset_every",
        "revised_opacity": "revised_opacity",
    }.items():
        assert getattr(ours, field) == default[name], field
    mcmc, ours = released["mcmc"], mcmc_config()
    assert isinstance(ours.strategy, McmcConfig)
    assert ours.init_opacity == mcmc["init_opa"]
    assert ours.init_scale == mcmc["init_scale"]
    assert (ours.opacity_reg, ours.scale_reg) == (mcmc["opacity_reg"], mcmc["scale_reg"])
    assert ours.strategy.noise_lr == mcmc["strategy"]["noise_lr"]
    assert ours.strategy.refine_stop == mcmc["strategy"]["refine_stop_iter"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_steps", 0), ("sh_degree", 4), ("init_opacity", 1.0), ("ssim_weight", 1.5), ("background", (0.0, 2.0, 0.0))],
)
def test_settings_out_of_range_name_their_field(field, value):
    with pytest.raises(ValueError, match=field):
        TrainConfig(**{field: value})


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="color"):
        TrainConfig.from_dict({"color": 1})


def test_a_mixture_that_can_only_draw_one_set_is_that_set():
    alone = _trainer(ADC)
    mixed = _trainer(ADC)
    views = ViewSet.from_views(_scene().views)
    mixed.views = ViewMixture((views, ViewSet.from_views(_scene().views[:1])), (1.0, 0.0))
    alone.train_until(12)
    mixed.train_until(12)
    _assert_same(alone, mixed)


def test_images_smaller_than_the_ssim_window_are_refused():
    small = downscaled(_scene(), 12)
    with pytest.raises(InputError, match="at least 11x11"):
        SplatTrainer(small, ViewSet.from_views(small.views), ADC)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("config", [ADC, MCMC], ids=["adc", "mcmc"])
def test_cuda_trains_as_the_cpu_does(config: TrainConfig, tmp_path: Path):
    on_cpu, on_cuda = (_trainer(replace(config, log_every=1), device=device) for device in ("cpu", "cuda"))
    for trainer in (on_cpu, on_cuda):
        trainer.train_until(60)
    # Adam's first steps are signs times rates: only losses tell whether gradients are right. MCMC draws other noise.
    first = 4 if config is ADC else 1
    losses = [[record.loss for record in trainer.history[:first]] for trainer in (on_cpu, on_cuda)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    scores = [
        evaluate(lambda camera, trainer=trainer: trainer.render(camera).rgb, _scene().views).psnr
        for trainer in (on_cpu, on_cuda)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1.0)
    on_cuda.save(tmp_path / "step_000060")
    loaded = SplatTrainer.load(tmp_path / "step_000060", _scene(), ViewSet.from_views(_scene().views), device="cuda")
    loaded.train_until(62)
    assert loaded.gaussians.means.is_cuda
