"""Each option of training does what it is there for, on scenes whose truth is known."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import image_metrics as metrics
from splat_recon import (
    AdcConfig,
    BilateralGridConfig,
    DepthConfig,
    ExposureConfig,
    InputError,
    PoseConfig,
    Scene,
    SplatTrainer,
    TrainConfig,
    View,
    ViewSet,
    absgrad_config,
    antialiased_config,
    mcmc_config,
)
from splat_recon.per_photo.bilateral_grid import sliced, total_variation
from splat_recon.per_photo.color_alignment import color_aligned
from splat_recon.per_photo.depth import DepthSupervision, nearest_in_cells
from splat_render import Gaussians, make_rasterizer
from support.rendered_scenes import ball, photographed, ring_camera
from train_runs import read_checkpoint

PLAIN = AdcConfig(refine_stop=0, reset_every=0)
"""No density control: the number of Gaussians stays."""

TRAIN, HELD_OUT = slice(0, 8), slice(8, 11)


@cache
def _scene() -> Scene:
    """Eight photos on a ring to train on, and three between them."""
    cameras = [ring_camera(index, 8, width=32, height=28) for index in range(8)]
    cameras += [ring_camera(place, 16, width=32, height=28) for place in (1, 7, 13)]
    return photographed(ball(150), cameras)


def _changed(change: Callable[[int, np.ndarray], np.ndarray]) -> Scene:
    """The scene with the colors of its training photos changed, values in [0, 1]."""
    views = []
    for index, view in enumerate(_scene().views):
        rgb = view.rgb_u8 / 255
        changed = change(index, rgb) if index < 8 else rgb
        views.append(replace(view, rgb_u8=(255 * np.clip(changed, 0, 1)).round().astype(np.uint8)))
    return replace(_scene(), views=tuple(views))


def _trained(scene: Scene, steps: int = 240, **settings) -> SplatTrainer:
    config = TrainConfig(
        max_steps=max(1, steps), sh_degree=0, strategy=PLAIN, log_every=20, init_opacity=0.9, init_scale=0.5
    )
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views[TRAIN]), replace(config, **settings))
    trainer.train_until(steps)
    return trainer


def _held_out_psnr(trainer: SplatTrainer, brightness: float = 1.0) -> float:
    scores = []
    for view in _scene().views[HELD_OUT]:
        photo = brightness * torch.tensor(view.rgb_u8) / 255
        scores.append(metrics.psnr(trainer.render(view.camera).rgb.clamp(0, 1), photo))
    return sum(scores) / len(scores)


def _gains() -> np.ndarray:
    """Per photo and channel, 1 in the mean."""
    gains = np.random.default_rng(3).uniform(0.6, 1.4, size=(8, 3))
    return gains / gains.mean(axis=0)


def test_exposures_are_found_and_leave_the_splat_clean():
    scene = _changed(lambda index, rgb: 0.7 * rgb * _gains()[index])
    learned = _trained(scene, appearance=ExposureConfig(rate=0.06))
    trusting = _trained(scene)
    assert learned.history[-1].loss < 0.75 * trusting.history[-1].loss

    # At test cameras, where no exposure was learned, the splat has the mean photo's colors.
    assert _held_out_psnr(learned, brightness=0.7) > _held_out_psnr(trusting, brightness=0.7) + 1
    # What was learned is affine, so that black and the three primaries show all of it.
    black_and_primaries = torch.cat([torch.zeros(1, 1, 3), torch.eye(3)[:, None]])
    affines = []
    for view in scene.views[TRAIN]:
        black, *primaries = learned.as_photo(black_and_primaries, view.name)[:, 0]
        affines.append(torch.stack([*(primary - black for primary in primaries), black], dim=1))
    found = np.array([affine.diagonal().numpy() for affine in affines])
    assert np.corrcoef(found.ravel(), _gains().ravel())[0, 1] > 0.85
    mean = torch.stack(affines).mean(dim=0)
    torch.testing.assert_close(mean, torch.eye(3, 4), atol=1e-5, rtol=0)
    view = scene.views[0]
    rgb = learned.render(view.camera).rgb
    photo = torch.tensor(view.rgb_u8) / 255
    assert metrics.psnr(learned.as_photo(rgb, view.name).clamp(0, 1), photo) > metrics.psnr(rgb.clamp(0, 1), photo) + 3
    assert torch.equal(learned.as_photo(rgb, "another"), rgb)


def test_a_bilateral_grid_follows_what_changes_across_the_image():
    ramp = np.linspace(-0.6, 0.6, 32)[None, :, None]
    slopes = np.array([1, -1, 0.5, -0.5, -1, 1, -0.5, 0.5])
    scene = _changed(lambda index, rgb: 0.6 * rgb * (1 + slopes[index] * ramp))
    grid = BilateralGridConfig(width=4, height=4, levels=2, rate=0.06, smoothness=0.01)
    losses = {
        name: _trained(scene, appearance=config).history[-1].loss
        for name, config in (("grid", grid), ("affine", ExposureConfig(rate=0.06)), ("none", None))
    }
    assert losses["grid"] < 0.8 * losses["affine"]
    assert losses["grid"] < 0.8 * losses["none"]


def test_grids_are_read_by_place_and_brightness():
    grid = torch.zeros(12, 3, 4, 5)
    grid[0] = torch.linspace(-1, 1, 5)  # Grows to the right.
    grid[1] = torch.linspace(-1, 1, 4)[:, None]  # Grows downwards.
    grid[2] = torch.linspace(0, 1, 3)[:, None, None]  # Grows with brightness.
    rgb = torch.rand(8, 10, 3, generator=torch.Generator().manual_seed(0))
    affine = sliced(grid, rgb)
    x, y = (torch.arange(10) + 0.5) / 5 - 1, (torch.arange(8) + 0.5) / 4 - 1
    torch.testing.assert_close(affine[0, 0], x.expand(8, 10))
    torch.testing.assert_close(affine[0, 1], y[:, None].expand(8, 10))
    torch.testing.assert_close(affine[0, 2], rgb @ torch.tensor([0.299, 0.587, 0.114]))
    assert float(total_variation(torch.ones(12, 2, 3, 4))) == 0
    assert float(total_variation(grid)) == pytest.approx((0.25 + 4 / 9 + 0.25) / 12, rel=1e-5)


def test_color_alignment_undoes_any_affine_change_and_nothing_else():
    generator = torch.Generator().manual_seed(1)
    photo = torch.rand(20, 24, 3, generator=generator)
    mixing = torch.tensor([[0.7, 0.1, 0.0], [0.0, 0.5, 0.1], [0.1, 0.0, 0.6]])
    aligned = color_aligned(photo @ mixing + 0.1, photo)
    torch.testing.assert_close(aligned, photo, atol=1e-3, rtol=0)
    other = torch.rand(20, 24, 3, generator=generator)
    assert metrics.psnr(color_aligned(other, photo), photo) < 12
    mask = torch.zeros(20, 24, dtype=torch.bool)
    mask[:10] = True
    spoiled = photo.clone()
    spoiled[10:] = 0
    torch.testing.assert_close(color_aligned(0.5 * photo, spoiled, mask)[:10], photo[:10], atol=1e-3, rtol=0)
    assert torch.isfinite(color_aligned(torch.zeros_like(photo), photo)).all()


def _too_near() -> Gaussians:
    """The true splat, every Gaussian nearer to the first camera and smaller, so that it looks the same from there."""
    splat, center = ball(150), torch.from_numpy(_scene().views[0].camera.T_world_cam[:3, 3]).float()
    factor = 0.8
    return Gaussians(
        **splat.parameters()
        | {"means": center + factor * (splat.means - center), "log_scales": splat.log_scales + math.log(factor)}
    )


@pytest.mark.parametrize("tracks", [True, False], ids=["tracks", "nearest"])
def test_depths_of_points_put_a_splat_in_its_place(tracks: bool):
    """One photo cannot tell that the splat is too near; the points can."""
    view = _scene().views[0]
    with torch.no_grad():
        true = make_rasterizer("cpu")(ball(150), view.camera, sh_degree=0)
    points = _scene().points
    if tracks:
        supervision = DepthSupervision(DepthConfig(), points, [view.name], near=0.01, extent=3.0, device="cpu")
        seen = supervision.visible(view.camera, view.name)
        nearest = {round(float(depth), 4) for depth in seen.depths}
        depths = (points.p_world - view.camera.T_world_cam[:3, 3]) @ view.camera.T_world_cam[:3, 2]
        seen_idx = np.array([index for index, depth in enumerate(depths) if round(float(depth), 4) in nearest])
        points = replace(points, seen_in={view.name: seen_idx})
    scene = replace(_scene(), points=points)
    errors = {}
    for weight in (0.0, 0.5):
        config = TrainConfig(
            max_steps=200, sh_degree=0, strategy=PLAIN, depth=DepthConfig(weight=weight) if weight else None
        )
        trainer = SplatTrainer(scene, ViewSet.from_views([view]), config, gaussians=_too_near())
        trainer.train_until(200)
        found = trainer.render(view.camera)
        both = (found.alpha > 0.9) & (true.alpha > 0.9)
        errors[weight] = float((found.depth - true.depth)[both].abs().mean())
    assert errors[0.0] > 0.3
    assert errors[0.5] < 0.5 * errors[0.0]


def test_points_that_no_photo_shows_do_not_teach():
    view = _scene().views[0]
    points = replace(_scene().points, seen_in={view.name: np.array([3, 5])})
    supervision = DepthSupervision(DepthConfig(), points, [view.name], near=0.01, extent=3.0, device="cpu")
    seen = supervision.visible(view.camera, view.name)
    assert len(seen.depths) == 2
    p_cam = view.camera.T_cam_world @ np.append(points.p_world[3], 1)
    assert float(seen.depths[0]) == pytest.approx(p_cam[2], rel=1e-5)
    x = view.camera.K @ p_cam[:3]
    np.testing.assert_allclose(seen.xy_px[0].numpy(), x[:2] / x[2], rtol=1e-5)
    output = make_rasterizer("cpu")(ball(150), view.camera, sh_degree=0)
    assert float(supervision.loss(output, view.camera, view.name)) > 0
    assert supervision.loss(output, view.camera, "another") == 0.0
    nothing = torch.zeros(28, 32)
    assert float(supervision.loss(output, view.camera, view.name, nothing)) == 0.0
    nearest = nearest_in_cells(
        np.array([[5, 5], [5.1, 5.1], [5.2, 5.2]], np.float32), np.array([1.0, 1.04, 2.0], np.float32), 32
    )
    assert nearest.tolist() == [True, True, False]


def _with_garbage(seed: int, *, masked: bool) -> Scene:
    views = []
    rng = np.random.default_rng(seed)
    for view in _scene().views[TRAIN]:
        rgb_u8, mask = view.rgb_u8.copy(), np.ones(view.rgb_u8.shape[:2], dtype=bool)
        rgb_u8[8:20, 10:24] = rng.integers(0, 256, size=(12, 14, 3))
        mask[8:20, 10:24] = False
        views.append(replace(view, rgb_u8=rgb_u8, mask=mask if masked else None))
    return replace(_scene(), views=(*views, *_scene().views[HELD_OUT]))


def test_what_is_masked_has_no_say_at_all():
    first, second = (_trained(_with_garbage(seed, masked=True), steps=60) for seed in (1, 2))
    for name, tensor in first.gaussians.parameters().items():
        assert torch.equal(tensor, second.gaussians.parameters()[name]), name
    masked, unmasked = (_trained(_with_garbage(1, masked=masked), steps=200) for masked in (True, False))
    assert _held_out_psnr(masked) > _held_out_psnr(unmasked) + 1


def test_batches_scale_adam_as_gsplat_does():
    for size in (1, 4, 20):
        groups = _trained(_scene(), steps=1, batch_size=size)._optimizer.groups()
        by_name = {group["name"]: group for group in groups}
        assert by_name["logit_opacities"]["lr"] == pytest.approx(5e-2 * math.sqrt(size))
        assert by_name["means"]["eps"] == pytest.approx(1e-15 / math.sqrt(size))
        expected = (0.9, 0.999) if size == 1 else (max(0, 1 - size * 0.1), 1 - size * 0.001)
        assert by_name["means"]["betas"] == pytest.approx(expected)


def test_a_step_of_several_photos_follows_their_mean():
    one, four = (_trained(_scene(), steps=0, batch_size=size) for size in (1, 4))
    gradients = []
    for _ in range(4):
        one._optimizer.zero_grad()
        one._view_loss(with_regularization=True)[0].backward()
        gradient = one._optimizer.gaussians.sh0.grad
        assert gradient is not None
        gradients.append(gradient.clone())
    four._optimizer.zero_grad()
    for _ in range(4):
        four._view_loss(with_regularization=False)[0].backward()
    torch.testing.assert_close(four._optimizer.gaussians.sh0.grad, torch.stack(gradients).mean(dim=0))
    many, few = _trained(_scene(), steps=40, batch_size=4), _trained(_scene(), steps=40)
    assert _held_out_psnr(many) > _held_out_psnr(few)


def test_density_control_sees_a_batch_as_its_single_photos(tmp_path: Path):
    """One photo four times in a step has the gradient average of the photo alone."""
    view = _scene().views[0]
    sums = {}
    for size in (1, 4):
        config = TrainConfig(sh_degree=0, batch_size=size, strategy=AdcConfig(refine_start=100))
        trainer = SplatTrainer(_scene(), ViewSet.from_views([view]), config)
        trainer.train_until(1)
        trainer.save(tmp_path / f"{size}")
        sums[size] = read_checkpoint(tmp_path / f"{size}").tensors
    torch.testing.assert_close(sums[4]["density.grad2d_sum"], 4 * sums[1]["density.grad2d_sum"])
    assert torch.equal(sums[4]["density.num_seen"], 4 * sums[1]["density.num_seen"])


def test_absolute_gradients_grow_what_signed_ones_overlook():
    """A Gaussian that spreads over fine texture is pulled to all sides at once."""
    view = _scene().views[0]
    stripes = np.zeros((28, 32, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    camera = view.camera
    center = camera.T_world_cam[:3, 3] + 2.0 * camera.T_world_cam[:3, 2]
    wide = Gaussians(
        means=torch.tensor(center).float().expand(20, 3),
        log_scales=torch.full((20, 3), math.log(0.25)),
        quats_wxyz=torch.tensor([1.0, 0, 0, 0]).expand(20, 4),
        logit_opacities=torch.full((20,), -2.0),
        sh0=torch.zeros(20, 1, 3),
        sh_rest=torch.zeros(20, 0, 3),
    )
    scene = replace(_scene(), views=(View(name="stripes", camera=camera, rgb_u8=stripes),))
    sizes = {}
    for absgrad in (False, True):
        strategy = AdcConfig(absgrad=absgrad, grow_grad2d=8e-4, refine_start=1, refine_every=5, reset_every=0)
        config = TrainConfig(max_steps=100, sh_degree=0, ssim_weight=0.0, strategy=strategy)
        trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config, gaussians=wide)
        trainer.train_until(6)
        sizes[absgrad] = len(trainer.gaussians)
    assert sizes[True] > sizes[False]
    preset = absgrad_config().strategy
    assert isinstance(preset, AdcConfig)
    assert preset.absgrad
    assert preset.grow_grad2d == 4 * AdcConfig().grow_grad2d


def test_regularization_makes_gaussians_fainter_and_smaller():
    plain, faint, small = (
        _trained(_scene(), steps=80, **settings) for settings in ({}, {"opacity_reg": 0.5}, {"scale_reg": 5.0})
    )
    assert float(faint.gaussians.opacities.mean()) < 0.8 * float(plain.gaussians.opacities.mean())
    assert float(small.gaussians.scales.mean()) < 0.8 * float(plain.gaussians.scales.mean())


def test_random_backgrounds_close_dark_surfaces():
    """Before black, a dark surface may as well be a hole; before changing colors it may not."""
    scene = _changed(lambda index, rgb: np.full_like(rgb, 0.02))
    alphas = {}
    for random in (False, True):
        trainer = _trained(scene, steps=120, random_background=random)
        alphas[random] = float(trainer.render(scene.views[0].camera).alpha.mean())
    assert alphas[True] > alphas[False] + 0.2


def test_antialiasing_keeps_tiny_gaussians_faint():
    tiny = Gaussians(**ball(150).parameters() | {"log_scales": torch.full((150, 3), -5.0)})
    rendered = {}
    for name, config in (("plain", TrainConfig()), ("antialiased", antialiased_config())):
        trainer = SplatTrainer(_scene(), ViewSet.from_views(_scene().views), config, gaussians=tiny)
        rendered[name] = float(trainer.render(_scene().views[0].camera).alpha.mean())
    assert rendered["antialiased"] < 0.5 * rendered["plain"]


SHORT = AdcConfig(refine_start=4, refine_every=5, refine_stop=30, reset_every=12, cap_max=200)
OPTIONS = {
    "default": TrainConfig(strategy=SHORT),
    "mcmc": replace(
        mcmc_config(200), strategy=replace(mcmc_config(200).strategy, refine_start=4, refine_every=5), init_scale=1.0
    ),
    "antialiased": replace(antialiased_config(), strategy=SHORT),
    "absgrad": TrainConfig(strategy=replace(SHORT, absgrad=True)),
    "poses": TrainConfig(strategy=SHORT, pose=PoseConfig(start=3)),
    "exposure": TrainConfig(strategy=SHORT, appearance=ExposureConfig()),
    "bilateral": TrainConfig(strategy=SHORT, appearance=BilateralGridConfig(width=4, height=4, levels=3)),
    "depth": TrainConfig(strategy=SHORT, depth=DepthConfig()),
    "batch": TrainConfig(strategy=SHORT, batch_size=3, random_background=True),
    "all": replace(
        mcmc_config(200),
        pose=PoseConfig(start=0),
        appearance=ExposureConfig(),
        depth=DepthConfig(),
        batch_size=2,
        antialiased=True,
        random_background=True,
        init_scale=1.0,
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_resumes_bit_for_bit(name: str, tmp_path: Path):
    config = replace(OPTIONS[name], max_steps=24, sh_degree=2, sh_degree_every=6, log_every=4)
    views = _scene().views[TRAIN]
    whole = SplatTrainer(_scene(), ViewSet.from_views(views), config)
    whole.train_until(20)
    parts = SplatTrainer(_scene(), ViewSet.from_views(views), config)
    for step in (7, 13, 20):
        parts.train_until(step)
        parts.save(tmp_path / str(step))
        parts = SplatTrainer.load(tmp_path / str(step), _scene(), ViewSet.from_views(views))
    assert parts.history == whole.history
    assert parts.config == config
    for field, tensor in whole.gaussians.parameters().items():
        assert torch.equal(tensor, parts.gaussians.parameters()[field]), field
    whole.save(tmp_path / "whole")
    expected, found = (read_checkpoint(tmp_path / name).tensors for name in ("whole", "20"))
    assert set(found) == set(expected)
    for field, tensor in expected.items():
        assert torch.equal(tensor, found[field]), field
        assert not field.startswith("views.") or float(tensor.double().abs().max()) > 0, field
    assert whole.pose_changes() == parts.pose_changes()
    assert len(whole.gaussians) > 100


def test_a_checkpoint_of_other_photos_is_refused_by_name(tmp_path: Path):
    views = _scene().views[TRAIN]
    trainer = SplatTrainer(_scene(), ViewSet.from_views(views), OPTIONS["poses"])
    trainer.train_until(1)
    trainer.save(tmp_path / "one")
    rgb_u8 = views[2].rgb_u8.copy()
    rgb_u8[0, 0, 0] ^= 1
    moved = views[2].camera.T_world_cam.copy()
    moved[0, 3] += 1e-9
    for changed in (
        replace(views[2], rgb_u8=rgb_u8),
        replace(views[2], camera=views[2].camera.with_pose(moved)),
        replace(views[2], mask=np.tri(28, 32, dtype=bool)),
    ):
        with pytest.raises(InputError, match=r"02\.png has another camera, other pixels or another mask"):
            SplatTrainer.load(tmp_path / "one", _scene(), ViewSet.from_views([*views[:2], changed, *views[3:]]))
    with pytest.raises(InputError, match=r"expected 00\.png, got 07\.png"):
        SplatTrainer.load(tmp_path / "one", _scene(), ViewSet.from_views(views[::-1]))
    with pytest.raises(InputError, match="it has 8, there are 7"):
        SplatTrainer.load(tmp_path / "one", _scene(), ViewSet.from_views(views[1:]))
    assert SplatTrainer.load(tmp_path / "one", _scene(), ViewSet.from_views(views)).step == 1


@pytest.mark.parametrize("setting", ["packed", "visible_adam", "sparse_grad"])
def test_what_only_gsplat_can_do_is_refused_on_a_cpu(setting: str):
    settings: dict[str, Any] = {"packed": True} | {setting: True}
    with pytest.raises(InputError, match=f"{setting}.* is for gsplat on CUDA"):
        SplatTrainer(_scene(), ViewSet.from_views(_scene().views), TrainConfig(**settings))


def test_nested_settings_survive_json():
    for config in OPTIONS.values():
        assert TrainConfig.from_dict(config.to_dict()) == config
    scaled = replace(OPTIONS["poses"], pose=PoseConfig(), max_steps=30_000).scaled_to(3000)
    assert scaled.pose == PoseConfig(start=50)
