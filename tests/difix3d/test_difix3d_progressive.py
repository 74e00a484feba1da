"""The loop: without rounds it is plain training; stopping and resuming changes nothing; views count as they should."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d import (
    EnhancedRenderer,
    FixResult,
    IdentityFixer,
    InputError,
    MixtureConfig,
    NovelView,
    NovelViews,
    ProgressiveConfig,
    ProgressiveTrainer,
    RoundsConfig,
    SteppingConfig,
    ValidationConfig,
    fixed_views,
    nearest_views,
)
from difix3d.loop.branch import clone_trainer
from difix3d.loop.target_config import HeldOutTargets
from difix_model import FixVerdict
from splat_recon import (
    AdcConfig,
    SplatTrainer,
    SyntheticConfig,
    TrainConfig,
    View,
    ViewMixture,
    ViewSet,
    generate_scene,
    normalized,
    with_training_points,
)
from splat_render import Camera
from support.fix_requests import flat_render, rendered_views

TRAIN = TrainConfig(
    max_steps=24, sh_degree_every=6, strategy=AdcConfig(refine_start=4, refine_every=5, refine_stop=20, reset_every=0)
)


def plain_trainer(scene, captured):
    scene, _ = with_training_points(scene, [view.name for view in captured])
    return SplatTrainer(scene, ViewSet.from_views(captured), TRAIN)


class WhiteningFixer:
    """A fixer whose work can be seen: halfway to white, plus a trace of the reference."""

    def __call__(self, request):
        traces = torch.stack([nearest.mean(dim=(0, 1)) for nearest, *_ in request.references])[:, None, None]
        return FixResult.of(request, (0.5 * request.rgb + 0.45 + 0.05 * traces).clamp(0, 1))


@pytest.fixture(scope="module")
def scene():
    config = SyntheticConfig(layout="table", num_views=8, width=48, height=36, num_points=120, samples_per_axis=1)
    return normalized(generate_scene(3, config))


@pytest.fixture(scope="module")
def captured(scene):
    return scene.views[::2]


@pytest.fixture(scope="module")
def T_world_target(scene):
    return np.stack([view.camera.T_world_cam for view in scene.views[1::2]])


@pytest.fixture
def new_loop(scene, captured, T_world_target):
    def make(fixer=None, **changes):
        config = ProgressiveConfig(
            train=TRAIN,
            rounds=RoundsConfig(num_rounds=2, first_round=0.4, last_round=0.7),
            targets=HeldOutTargets(),
            mixture=MixtureConfig(novel_prob=0.5),
            validation=ValidationConfig(fraction=0),
        )
        return ProgressiveTrainer(
            scene, captured, T_world_target, fixer or WhiteningFixer(), replace(config, **changes)
        )

    return make


def _assert_same_splats(one, other):
    assert one.step == other.step
    for name, tensor in one.gaussians.parameters().items():
        assert torch.equal(tensor, other.gaussians.parameters()[name]), name


def test_without_rounds_it_is_plain_training_bit_for_bit(scene, captured, new_loop):
    plain = plain_trainer(scene, captured)
    plain.train_until(24)
    loop = new_loop(IdentityFixer(), rounds=RoundsConfig(num_rounds=0))
    loop.train_until(24)
    _assert_same_splats(loop.trainer, plain)
    assert loop.main.novel is None


def test_rounds_that_are_never_drawn_from_change_nothing(scene, captured, new_loop):
    plain = plain_trainer(scene, captured)
    plain.train_until(24)
    loop = new_loop(mixture=MixtureConfig(novel_prob=0.0))
    loop.train_until(24)
    assert loop.num_rounds_done == 2
    _assert_same_splats(loop.trainer, plain)


class FixingOne:
    """Whitens the first novel view of a round and leaves the others as they are, holes filled."""

    def __init__(self, whitens=1):
        self.whitens = whitens

    def __call__(self, request):
        rgb = torch.where(request.alpha[..., None] > 0.5, request.rgb, 1.0)
        rgb[: self.whitens] = 0.5 + 0.5 * request.rgb[: self.whitens]
        return FixResult.of(request, rgb)


def test_a_round_that_changes_nothing_is_plain_training_bit_for_bit(scene, captured, new_loop, caplog):
    plain = plain_trainer(scene, captured)
    plain.train_until(24)
    with caplog.at_level(logging.INFO, logger="difix3d"):
        loop = new_loop(FixingOne(whitens=0))
        loop.train_until(24)
    assert (loop.num_rounds_done, loop.main.num_rounds_learned) == (2, 0)
    _assert_same_splats(loop.trainer, plain)
    assert "nothing is learned from it" in caplog.text
    control = new_loop(FixingOne(whitens=0), rounds=replace(loop.config.rounds, learn_unchanged=True))
    control.train_until(24)
    assert control.main.num_rounds_learned == 2
    assert not torch.equal(control.trainer.gaussians.sh0[:50], plain.gaussians.sh0[:50])


def test_photos_take_the_steps_of_views_that_were_not_changed(new_loop, T_world_target, tmp_path):
    loop = new_loop(FixingOne())
    loop.train_until(loop.events[0].step)
    loop.save(tmp_path / "saved")
    resumed = new_loop(FixingOne())
    resumed.load(tmp_path / "saved")
    for each in (loop, resumed):
        assert len(each.main.novel.views) == len(T_world_target) == 4
        assert each.main.num_rounds_learned == 1
        assert [len(views) for views in each.trainer.views.sets] == [4, 1]
        assert each.trainer.views.probs == (1 - 0.5 / 4, 0.5 / 4)


def test_fixed_views_are_learned_from_only_after_the_first_round(scene, captured, new_loop):
    plain = plain_trainer(scene, captured)
    loop = new_loop()
    first = loop.events[0].step
    for trainer in (plain, loop):
        trainer.train_until(first)
    _assert_same_splats(loop.trainer, plain)
    for trainer in (plain, loop):
        trainer.train_until(24)
    assert not torch.equal(loop.trainer.gaussians.sh0[:50], plain.gaussians.sh0[:50])


def test_stopping_and_resuming_around_a_round_is_bitwise_the_same(tmp_path, new_loop):
    whole = new_loop()
    whole.train_until(24)
    first, second = (event.step for event in whole.events)
    for stop in (first - 1, first, first + 2, second):
        part = new_loop()
        part.train_until(stop)
        part.save(tmp_path / f"at_{stop}")
        resumed = new_loop()
        resumed.load(tmp_path / f"at_{stop}")
        assert resumed.num_rounds_done == sum(step <= stop for step in (first, second))
        resumed.train_until(24)
        _assert_same_splats(resumed.trainer, whole.trainer)
        np.testing.assert_array_equal(resumed.main.T_world_novel, whole.main.T_world_novel)


def test_a_clone_goes_on_like_its_original(scene, captured):
    plain = plain_trainer(scene, captured)
    plain.train_until(7)
    copy = clone_trainer(plain, captured)
    for trainer in (plain, copy):
        trainer.train_until(15)
    _assert_same_splats(copy, plain)


def test_rounds_that_are_left_out_are_mentioned(new_loop, caplog):
    with caplog.at_level(logging.WARNING, logger="difix3d"):
        loop = new_loop(rounds=RoundsConfig(round_steps=(10, 24)))
    assert len(loop.events) == 1
    assert "1 rounds are left out" in caplog.text


def test_damaged_and_foreign_checkpoints_are_named(tmp_path, new_loop):
    loop = new_loop()
    loop.train_until(loop.events[0].step)
    loop.save(tmp_path / "saved")
    with pytest.raises(InputError, match="another run"):
        new_loop(rounds=RoundsConfig(num_rounds=0)).load(tmp_path / "saved")
    novel_views = tmp_path / "saved" / "main" / "state.safetensors"
    novel_views.write_bytes(novel_views.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        new_loop().load(tmp_path / "saved")
    novel_views.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        new_loop().load(tmp_path / "saved")
    with pytest.raises(InputError, match="cannot be read"):
        new_loop().load(tmp_path / "missing")


def test_a_round_records_what_was_rendered_fixed_and_looked_at(captured, new_loop, T_world_target):
    loop = new_loop(stepping=SteppingConfig(step_distance=100.0))
    loop.train_until(loop.events[0].step)
    np.testing.assert_array_equal(loop.main.novel.T_world_cam, T_world_target)
    references = {view.name: view for view in captured}
    for view in loop.main.novel.views:
        rendered = loop.trainer.render(view.camera)
        assert torch.equal(view.rendered, rendered.rgb.clamp(0, 1))
        assert torch.equal(view.alpha, rendered.alpha)
        trace = torch.tensor(references[view.reference_name].rgb_u8).float().div(255).mean(dim=(0, 1))
        torch.testing.assert_close(view.fixed, (0.5 * view.rendered + 0.45 + 0.05 * trace).clamp(0, 1))
    assert isinstance(loop.trainer.views, ViewMixture)
    assert loop.trainer.views.probs == (0.5, 0.5)
    assert {view.weight for view in loop.trainer.views.sets[1]} == {loop.config.mixture.novel_weight}


def test_fixed_views_count_only_where_the_render_was_opaque():
    camera = Camera(T_world_cam=np.eye(4), K=np.diag([20.0, 20.0, 1.0]), width=12, height=11)
    alpha = torch.zeros(11, 12, 1)
    alpha[:, 6:] = 0.9
    alpha[:, 0] = 0.5
    image = torch.full((11, 12, 3), 0.3)

    def novel(alpha):
        verdict = FixVerdict(proposed_change=0.0, applied_change=0.0)
        view = NovelView(camera=camera, reference_name="a", rendered=image, fixed=image, alpha=alpha, verdict=verdict)
        return NovelViews(round_index=0, views=(view,))

    mixture = MixtureConfig(novel_weight=0.3, alpha_threshold=0.5)
    (view,) = novel(alpha).training_views(mixture)
    assert view.weight == 0.3
    assert view.pixel_weight is not None
    assert torch.equal(view.pixel_weight, (alpha[..., 0] == 0.9).float())
    assert novel(torch.zeros(11, 12, 1)).training_views(mixture) == []


def test_views_of_different_sizes_never_share_a_batch(captured):
    sizes = []

    class Watching:
        def __call__(self, request):
            sizes.append((tuple(request.rgb.shape), [tuple(nearest.shape) for (nearest,) in request.references]))
            return FixResult.of(request, request.rgb + 0.25)

    small = View(name="small", camera=captured[0].camera.resized(24, 18), rgb_u8=captured[0].rgb_u8[:18, :24])
    rendered = [torch.full((36, 48, 3), value) for value in (0.0, 0.1, 0.2)] + [torch.zeros(20, 48, 3)]
    references = [captured[0], captured[1], small, captured[0]]
    views = rendered_views(rendered, [[reference] for reference in references])
    fixed = list(fixed_views(Watching(), views, batch_size=2))
    assert sizes == [
        ((2, 36, 48, 3), [(36, 48, 3)] * 2),
        ((1, 36, 48, 3), [(18, 24, 3)]),
        ((1, 20, 48, 3), [(36, 48, 3)]),
    ]
    for one, other in zip(fixed, rendered, strict=True):
        torch.testing.assert_close(one.rgb, other + 0.25)
        assert one.verdict.applied_change == pytest.approx(0.25)
        assert one.verdict.reason == "passed"


def test_the_nearest_captured_view_of_a_captured_pose_is_itself(scene, captured):
    poses = np.stack([view.camera.T_world_cam for view in captured])
    assert nearest_views(captured, poses, extent=scene.extent) == tuple(captured)


def test_enhanced_renderer_fixes_with_the_nearest_photo(scene, captured):
    renderer = EnhancedRenderer(flat_render(2.0), WhiteningFixer(), captured, extent=scene.extent)
    trace = torch.tensor(captured[1].rgb_u8).float().div(255).mean(dim=(0, 1))
    expected = (0.95 + 0.05 * trace).expand(36, 48, 3)
    torch.testing.assert_close(renderer(captured[1].camera), expected)
