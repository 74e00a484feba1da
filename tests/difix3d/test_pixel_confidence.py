"""What captured views know of a place decides how far a fixed pixel that shows it is believed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d import (
    FixResult,
    MixtureConfig,
    ProgressiveConfig,
    ProgressiveTrainer,
    RoundsConfig,
    ValidationConfig,
)
from difix3d.loop.confidence import PixelConfidence
from difix3d.loop.surface_points import DepthView, SurfacePoints, project
from difix3d.loop.target_config import HeldOutTargets
from splat_recon import SyntheticConfig, TrainConfig, View, generate_scene, normalized
from splat_render import Camera, Gaussians, make_rasterizer

K = np.array([[60.0, 0, 30], [0, 60, 20], [0, 0, 1]])


def _camera(x):
    T_world_cam = np.eye(4)
    T_world_cam[0, 3] = x
    return Camera(T_world_cam=T_world_cam, K=K, width=60, height=40)


@pytest.fixture(scope="module")
def render():
    """A colored wall at z = 2 from x = -3 to 3, and a board at z = 1 in front of its middle."""
    x, y = np.meshgrid(np.linspace(-3, 3, 91), np.linspace(-1, 1, 31))
    wall = np.stack([x.ravel(), y.ravel(), np.full(x.size, 2.0)], axis=1)
    x, y = np.meshgrid(np.linspace(-0.1, 0.1, 7), np.linspace(-1, 1, 41))
    board = np.stack([x.ravel(), y.ravel(), np.full(x.size, 1.0)], axis=1)
    means = torch.tensor(np.concatenate([wall, board]), dtype=torch.float32)
    n = len(means)
    sh0 = torch.zeros(n, 1, 3)
    sh0[:, 0, 0] = torch.sin(2 * means[:, 0])
    sh0[:, 0, 1] = means[:, 1]
    sh0[len(wall) :, 0, 2] = 1.5
    splat = Gaussians(
        means=means,
        log_scales=torch.full((n, 3), float(np.log(0.04))),
        quats_wxyz=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        logit_opacities=torch.full((n,), 4.0),
        sh0=sh0,
        sh_rest=torch.zeros(n, 0, 3),
    )
    rasterize = make_rasterizer("cpu")
    return lambda camera: rasterize(splat, camera, sh_degree=0)


def _photo(camera, render, mask=None):
    rgb_u8 = (render(camera).rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return View(name=f"{camera.center_world[0]:+.2f}", camera=camera, rgb_u8=rgb_u8, mask=mask)


def confidence_of(captured, render, **mixture):
    return PixelConfidence(captured, render, ProgressiveConfig(mixture=MixtureConfig(**mixture)))


def test_points_are_seen_where_they_are_shown(render):
    view = DepthView.of(_camera(-1.5), render(_camera(-1.5)))
    points = SurfacePoints.of(view)
    assert len(points.p_world) == 60 * 40
    torch.testing.assert_close(points.p_world[:, 2], torch.full((2400,), 2.0).double(), atol=0.02, rtol=0)
    found = project(points.p_world, view)
    torch.testing.assert_close(found.xy[:, 0], points.columns_idx + 0.5, check_dtype=False)
    torch.testing.assert_close(found.xy[:, 1], points.rows_idx + 0.5, check_dtype=False)
    torch.testing.assert_close(found.visibility, torch.ones(2400).double(), atol=1e-6, rtol=0)


def test_points_behind_something_or_outside_are_not_seen(render):
    view = DepthView.of(_camera(0.0), render(_camera(0.0)))
    p_world = torch.tensor(
        [[0.5, 0.1, 2.0], [0.0, 0.1, 2.0], [0.0, 0.1, 0.9], [5.0, 0.1, 2.0], [0.0, 0.1, -2.0]], dtype=torch.float64
    )
    beside, behind, before, outside, back = project(p_world, view).visibility.tolist()
    assert (beside, before) == pytest.approx((1, 1), abs=0.01)
    assert behind < 0.01
    assert outside == back == 0


def test_pixels_that_show_what_nobody_sees_count_less(render):
    # The two see the wall from x = -2 to 0, but for what the board hides from them.
    captured = [_photo(_camera(x), render) for x in (-1.0, -0.9)]
    confidence = confidence_of(captured, render, unseen_weight=0.25)
    weight = confidence.of(_camera(0.5), torch.zeros(40, 60, 3))
    assert weight is not None
    assert weight.shape == (40, 60)
    assert weight.dtype == torch.float32
    x = 0.5 + (torch.arange(60) + 0.5 - 30) / 30  # Of the wall's points that the columns show.
    assert weight[:, x > 0.25].max() < 0.3
    assert weight[:, x > 0.25].min() == pytest.approx(0.25)
    both = confidence_of([*captured, _photo(_camera(1.0), render)], render, unseen_weight=0.25)
    seen = both.visibility(_camera(0.5))
    assert seen[:, x > 0.3].min() > 0.95
    assert seen.max() <= 1 + 1e-9
    # Nobody sees between the board's shadows, and the pixels of an empty view show nothing.
    empty = Camera(T_world_cam=np.diag([1.0, -1, -1, 1]), K=K, width=60, height=40)
    torch.testing.assert_close(both.visibility(empty), torch.full((40, 60), 0.25).double())


def test_colors_that_photos_contradict_count_less_and_unseen_ones_as_before(render):
    captured = [_photo(_camera(x), render) for x in (-1.0, -0.8)]
    confidence = confidence_of(captured, render, photo_tolerance=0.1)
    at = _camera(-0.4)
    output = render(at)
    right = output.rgb.clamp(0, 1)
    x = -0.4 + (torch.arange(60) + 0.5 - 30) / 30
    known = (x > -1.3) & (x < -0.55)
    agreed = confidence.of(at, right)
    assert agreed is not None
    assert agreed[4:-4, known].min() > 0.95
    wrong = (right + torch.tensor([0.0, 0.0, 0.3])).clamp(0, 1)
    contradicted = confidence.of(at, wrong)
    assert contradicted is not None
    # A third of 0.3 is the difference at which a pixel counts half.
    torch.testing.assert_close(contradicted[4:-4, known], torch.full((32, int(known.sum())), 0.5), atol=0.03, rtol=0)
    # No photo reaches beyond x = 0.2.
    assert torch.equal(contradicted[:, x > 0.25], torch.ones(40, int((x > 0.25).sum())))


def test_masked_pixels_of_photos_know_nothing(render):
    mask = np.ones((40, 60), dtype=bool)
    mask[:20] = False
    confidence = confidence_of([_photo(_camera(-1.0), render, mask)], render, photo_tolerance=0.1)
    at = _camera(-1.1)
    weight = confidence.of(at, torch.zeros(40, 60, 3))
    assert weight is not None
    assert torch.equal(weight[:19], torch.ones(19, 60))
    assert weight[21:, 10:].max() < 0.3


class Half:
    """A fixer that makes the left half of everything black."""

    def __call__(self, request):
        fixed = request.rgb.clone()
        fixed[:, :, : fixed.shape[2] // 2] = 0
        return FixResult.of(request, fixed)


@pytest.fixture(scope="module")
def new_loop():
    config = SyntheticConfig(layout="table", num_views=8, width=48, height=36, num_points=400, samples_per_axis=1)
    scene = normalized(generate_scene(3, config))
    targets = np.stack([view.camera.T_world_cam for view in scene.views[5:]])

    def make(fixer, **changes):
        config = ProgressiveConfig(
            train=TrainConfig(max_steps=24),
            rounds=RoundsConfig(num_rounds=2, first_round=0.4, last_round=0.7),
            targets=HeldOutTargets(),
            mixture=replace(MixtureConfig(novel_prob=0.5), **changes),
            validation=ValidationConfig(fraction=0),
        )
        return ProgressiveTrainer(scene, scene.views[:5], targets, fixer, config)

    return make


def test_a_loop_asks_only_what_it_is_told_to(new_loop):
    plain, asking = new_loop(Half()), new_loop(Half(), unseen_weight=0.0)
    for loop in (plain, asking):
        loop.train_until(12)
    assert [view.confidence for view in plain.main.novel.views] == [None] * 3
    for view, learned in zip(asking.main.novel.views, asking.trainer.views.sets[1], strict=True):
        opaque = (view.alpha[..., 0] > 0.5).float()
        assert torch.equal(learned.pixel_weight, opaque * view.confidence)
        assert 0 < learned.pixel_weight.mean() < opaque.mean()


def test_a_spoiled_half_counts_less_and_stopping_changes_nothing(new_loop, tmp_path):
    whole, part, resumed = (new_loop(Half(), photo_tolerance=0.1, unseen_weight=0.5) for _ in range(3))
    whole.train_until(24)
    for view in whole.main.novel.views:
        assert view.confidence[:, :24].mean() < view.confidence[:, 24:].mean()
    stop = whole.events[0].step + 2
    part.train_until(stop)
    part.save(tmp_path / "saved")
    resumed.load(tmp_path / "saved")
    for saved, loaded in zip(part.main.novel.views, resumed.main.novel.views, strict=True):
        assert torch.equal(saved.confidence, loaded.confidence)
    resumed.train_until(24)
    for name, tensor in whole.trainer.gaussians.parameters().items():
        assert torch.equal(tensor, resumed.trainer.gaussians.parameters()[name]), name
