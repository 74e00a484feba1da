"""Views held back: what lowers their score is undone, and stopping in between changes nothing."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difix3d import (
    Experiment,
    FixResult,
    IdentityFixer,
    MixtureConfig,
    ProgressiveConfig,
    ProgressiveTrainer,
    RoundsConfig,
    RunFolder,
    RunSettings,
    ValidationConfig,
)
from difix3d.loop import progressive
from difix3d.loop.rollback import RollbackPolicy
from difix3d.loop.schedule import events
from difix3d.loop.target_config import HeldOutTargets
from difix3d.loop.validation_views import most_replaceable
from splat_recon import (
    AdcConfig,
    SplatTrainer,
    SyntheticConfig,
    TrainConfig,
    ViewMixture,
    ViewSet,
    generate_scene,
    normalized,
    with_training_points,
    write_scene,
)

STEPS = 30
TRAIN = TrainConfig(
    max_steps=STEPS, sh_degree_every=6, strategy=AdcConfig(refine_start=4, refine_every=5, reset_every=0)
)
VALIDATION = ValidationConfig(fraction=0.2, min_views=2, max_drop_db=0.05, validate_every=0.2, first=0.0)


def plain_trainer(scene, captured, config):
    scene, _ = with_training_points(scene, [view.name for view in captured])
    return SplatTrainer(scene, ViewSet.from_views(captured), config)


class Blinding:
    """A harmful fixer: everything becomes blue."""

    def __call__(self, request):
        return FixResult.of(request, torch.tensor([0.0, 0.0, 1.0]).expand_as(request.rgb).clone())


@pytest.fixture(scope="module")
def scene():
    config = SyntheticConfig(layout="table", num_views=8, width=40, height=32, num_points=120, samples_per_axis=1)
    return normalized(generate_scene(3, config))


@pytest.fixture(scope="module")
def new_loop(scene):
    captured = scene.views[:5]
    targets = np.stack([view.camera.T_world_cam for view in scene.views[5:]])

    def make(fixer, *, trainer=None, **changes):
        config = ProgressiveConfig(
            train=TRAIN,
            rounds=RoundsConfig(num_rounds=2, first_round=0.4, last_round=0.6),
            targets=HeldOutTargets(),
            mixture=MixtureConfig(novel_prob=0.8, novel_weight=5.0, alpha_threshold=0.0),
            validation=VALIDATION,
        )
        return ProgressiveTrainer(scene, captured, targets, fixer, replace(config, **changes), trainer=trainer)

    return make


@pytest.fixture(scope="module")
def harmed(new_loop):
    """A loop whose fixer harms, at its end."""
    loop = new_loop(Blinding())
    loop.train_until(STEPS)
    return loop


def _assert_same(one, other):
    for name, tensor in one.gaussians.parameters().items():
        assert torch.equal(tensor, other.gaussians.parameters()[name]), name


def _verdicts(loop):
    return [(score.step, score.action, score.verdict) for score in loop.policy.scores]


def test_harmful_rounds_are_undone_and_leave_plain_training(harmed, scene):
    assert len(harmed.held_back) == 1
    assert harmed.policy.num_rounds_undone >= 1
    assert harmed.main.novel is None
    assert harmed.step == STEPS
    # The loop counts what was undone, the splat does not: a rollback goes back to the newest score that was kept.
    scores, expected, reached = harmed.policy.scores, 0, 0
    for score in scores:
        assert score.splat_step == expected + score.step - reached
        reached, expected = score.step, expected if score.verdict == "undone" else score.splat_step
    assert harmed.trainer.step == (
        harmed.policy.best.splat_step if harmed.policy.stopped or scores[-1].verdict == "undone" else expected
    )
    assert harmed.trainer.step < STEPS
    plain = plain_trainer(scene, harmed.captured, TRAIN)
    plain.train_until(harmed.trainer.step)
    _assert_same(harmed.trainer, plain)


def test_only_the_bad_round_is_undone(new_loop, monkeypatch):
    """By scores that are given: the second round harms, and the views of the first one come back."""
    psnrs = iter([10.0, 11.0, 12.0, 5.0, 13.0])
    monkeypatch.setattr(progressive, "evaluate", lambda *_: SimpleNamespace(psnr=next(psnrs)))
    loop = new_loop(Blinding())
    while len(loop.policy.scores) < 3:
        loop.train_until(loop.step + 1)
    assert loop.num_rounds_done == 2
    assert [branch.novel.round_index for branch in loop.branches] == [1, 1]
    first_round = new_loop(Blinding())
    monkeypatch.setattr(progressive, "evaluate", lambda *_: SimpleNamespace(psnr=10.0 + first_round.step))
    while first_round.num_rounds_done < 1:
        first_round.train_until(first_round.step + 1)
    splat_step = loop.trainer.step
    monkeypatch.setattr(progressive, "evaluate", lambda *_: SimpleNamespace(psnr=next(psnrs)))
    while len(loop.policy.scores) < 4:
        loop.train_until(loop.step + 1)
    assert loop.policy.scores[-1].verdict == "undone"
    assert loop.policy.num_rounds_undone == 1
    assert loop.trainer.step == splat_step
    for branch, before in zip(loop.branches, first_round.branches, strict=True):
        assert branch.novel.round_index == 0
        assert np.array_equal(branch.T_world_novel, before.T_world_novel)
        for view, other in zip(branch.novel.views, before.novel.views, strict=True):
            assert torch.equal(view.fixed, other.fixed)
            assert np.array_equal(view.camera.T_world_cam, other.camera.T_world_cam)


def test_stopping_and_resuming_around_what_is_undone_is_bitwise_the_same(harmed, new_loop, tmp_path):
    undone = next(score for score in harmed.policy.scores if score.verdict == "undone")
    for stop in (undone.step - 1, undone.step, undone.step + 1):
        part = new_loop(Blinding())
        part.train_until(stop)
        part.save(tmp_path / f"at_{stop}")
        resumed = new_loop(Blinding())
        resumed.load(tmp_path / f"at_{stop}")
        assert resumed.step == stop
        resumed.train_until(STEPS)
        assert _verdicts(resumed) == _verdicts(harmed)
        _assert_same(resumed.trainer, harmed.trainer)
        _assert_same(resumed.validation.trainer, harmed.validation.trainer)


def test_a_shared_training_saves_time_and_changes_nothing(harmed, new_loop, scene):
    plain = plain_trainer(scene, harmed.captured, TRAIN)
    loop = new_loop(Blinding(), trainer=plain)
    for step in range(1, STEPS + 1):
        loop.train_until(step)
        plain.train_until(step)
        assert (loop.trainer is plain) == loop.main.shares_trainer
    assert not loop.main.shares_trainer
    alone = plain_trainer(scene, harmed.captured, TRAIN)
    alone.train_until(STEPS)
    _assert_same(plain, alone)
    assert _verdicts(loop) == _verdicts(harmed)
    _assert_same(loop.trainer, harmed.trainer)


def test_harmless_rounds_are_kept(new_loop):
    mild = MixtureConfig(novel_prob=0.1, novel_weight=0.05)
    rounds = RoundsConfig(num_rounds=2, first_round=0.4, last_round=0.6, learn_unchanged=True)
    loop = new_loop(IdentityFixer(), mixture=mild, rounds=rounds, validation=replace(VALIDATION, max_drop_db=5.0))
    loop.train_until(STEPS)
    assert loop.policy.num_rounds_undone == 0
    assert loop.num_rounds_done == 2
    assert loop.trainer.step == STEPS
    assert isinstance(loop.trainer.views, ViewMixture)
    names = {view.name for view in loop.held_back}
    assert names
    assert not names & {view.name for view in loop.validation.captured}
    assert names <= {view.name for view in loop.main.captured}
    # Fixes of the second branch never look at what is held back.
    assert not names & {view.reference_name for view in loop.validation.novel.views}


def test_a_shared_training_that_went_on_by_itself_is_refused(new_loop, scene):
    plain = plain_trainer(scene, scene.views[:5], TRAIN)
    loop = new_loop(Blinding(), trainer=plain)
    plain.train_until(2)
    with pytest.raises(ValueError, match="shared is at step 2, the loop at 0"):
        loop.train_until(3)


def _following(psnrs, *, planned=False, possible=True, **config):
    policy = RollbackPolicy(ValidationConfig(max_drop_db=0.1, **config))
    found = []
    for step, psnr in enumerate(psnrs, start=1):
        verdict = policy.record(psnr, step=step, splat_step=step)
        found.append((verdict, policy.next_action(planned=planned, possible=possible)))
    return policy, found


def test_the_policy_takes_the_other_action_and_then_stops():
    policy, found = _following((10.0, 11.0, 10.5, 10.95, 10.6, 10.0))
    assert found == [
        ("best", "training"),
        ("best", "training"),
        ("undone", "round"),  # A round is brought forward.
        ("kept", "training"),
        ("undone", "round"),
        ("undone", None),
    ]
    assert policy.stopped
    assert policy.best is not None
    assert policy.best.psnr == 11.0
    again = RollbackPolicy(policy.config)
    again.load_state_dict(json.loads(json.dumps(policy.state_dict())))
    assert again.state_dict() == policy.state_dict()


def test_without_possible_rounds_one_failure_is_enough():
    assert _following((10.0, 9.0), possible=False)[1] == [("best", "training"), ("undone", None)]


def test_rounds_end_when_too_many_were_undone():
    _, found = _following((10.0, 9.0, 11.0, 10.0, 12.0, 13.0), planned=True, max_undone_rounds=2)
    assert [following for _, following in found] == ["round", "training", "round", "training", "training", "training"]


def test_events_are_rounds_and_validations_between_them():
    def found(*, validates, **validation):
        config = ProgressiveConfig(
            train=replace(TRAIN, max_steps=100),
            rounds=RoundsConfig(round_steps=(50, 62)),
            validation=ValidationConfig(**validation),
        )
        return [(event.step, event.is_round) for event in events(config, validates=validates)]

    assert found(validates=False) == [(50, True), (62, True)]
    late = found(validates=True, validate_every=0.1, first=0.3)
    assert [step for step, _ in late] == [30, 40, 50, 62, 70, 80, 90, 100]
    assert found(validates=True, validate_every=0.2) == [
        (20, False), (50, True), (62, True), (80, False), (100, False)
    ]  # fmt: skip


def test_few_views_hold_none_back_unless_asked():
    assert [ValidationConfig().num_views(count) for count in (3, 6, 9, 12, 100)] == [0, 0, 0, 2, 6]
    asked = ValidationConfig(min_views=4)
    assert [asked.num_views(count) for count in (3, 4, 6, 9, 100)] == [0, 1, 1, 1, 6]
    assert ValidationConfig(fraction=0).num_views(50) == 0
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = (0.0, 1.0, 1.1, 2.0, 3.0)
    assert most_replaceable(poses, 1, extent=1.0) == [1]
    assert most_replaceable(poses, 2, extent=1.0)[0] == 1


def test_a_whole_run_says_what_was_undone_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 2)
    config = SyntheticConfig(layout="table", num_views=8, width=40, height=32, num_points=100, samples_per_axis=1)
    write_scene(tmp_path / "table", generate_scene(5, config))
    settings = RunSettings(
        scene=str(tmp_path / "table"),
        max_steps=40,
        rounds=RoundsConfig(num_rounds=2),
        num_novel=3,
        mixture=MixtureConfig(novel_prob=0.9, novel_weight=50.0),
        validation=ValidationConfig(fraction=0.2, min_views=3, max_drop_db=0.0),
        split="every:4",
    )
    whole, part = (RunFolder(tmp_path / name) for name in ("whole", "part"))
    list(Experiment(settings, whole, fixer=Blinding()).run())
    metrics = json.loads((whole.path / "metrics.json").read_text())
    validation = metrics["validation"]
    assert len(validation["views"]) == 1
    undone = [score["step"] for score in validation["scores"] if score["verdict"] == "undone"]
    assert undone
    page = (whole.path / "report.html").read_text()
    assert validation["splat_step"] < 40
    assert f"What lowered the score was undone, {len(undone)} times" in page
    assert ("training stopped early" in page) == validation["stopped_early"]
    list(Experiment(settings, part, fixer=Blinding()).run(stop_at=min(39, undone[0] + 1)))
    list(Experiment(settings, part, resume=True, fixer=Blinding()).run())
    for name in ("plain.ply", "loop.ply", "metrics.json", "metrics.jsonl"):
        assert (part.path / name).read_bytes() == (whole.path / name).read_bytes(), name
