"""Views held back: what lowers their score is undone, and stopping in between changes nothing."""

import gc
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.fixers.contract import FixResult
from difix3d.fixers.identity import IdentityFixer
from difix3d.loop.config import EvenRounds, HoldBackConfig, MixtureConfig, PoolConfig, ProgressiveConfig
from difix3d.loop.novel_views import pool_view_set
from difix3d.loop.progressive import ProgressiveTrainer
from difix3d.loop.rollback import Watch, held_back_indices, marks
from difix3d.loop.schedule import Round
from difix3d.loop.target_config import HeldOutTargets
from difix3d.run.experiment import Experiment
from difix3d.run.run_folder import RunFolder
from difix3d.run.settings import RunSettings
from splat_recon.config import AdcConfig, TrainConfig
from splat_recon.io.colmap import write_scene
from splat_recon.scene.normalize import normalized
from splat_recon.scene.synthetic import SyntheticConfig, generate_scene
from splat_recon.scene.training_points import with_training_points
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet

STEPS = 30
TRAIN = TrainConfig(
    max_steps=STEPS, sh_degree_every=6, strategy=AdcConfig(refine_start=4, refine_every=5, reset_every=0)
)
WATCHING = HoldBackConfig(share=0.2, min_views=2, margin=0.05, check_every=0.2, first_check=0.0)


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

    def make(fixer, *, follows=None, **changes):
        config = ProgressiveConfig(
            train=TRAIN,
            rounds=EvenRounds(num_rounds=2, first=0.4, last=0.6),
            targets=HeldOutTargets(),
            mixture=MixtureConfig(novel_prob=0.8, novel_weight=5.0, alpha_threshold=0.0),
            hold_back=WATCHING,
        )
        return ProgressiveTrainer(scene, captured, targets, fixer, replace(config, **changes), follows=follows)

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
    return [(check.step, check.tried, check.verdict) for check in loop.watch.checks]


def test_harmful_rounds_are_undone_and_leave_plain_training(harmed, scene):
    assert len(harmed.held_back) == 1
    assert harmed.watch.num_rounds_undone >= 1
    assert harmed.novel is None
    assert harmed.step == STEPS
    assert harmed.trainer.step == STEPS - harmed.num_undone_steps < STEPS
    plain = plain_trainer(scene, harmed.captured, TRAIN)
    plain.train_until(harmed.trainer.step)
    _assert_same(harmed.trainer, plain)


def test_stopping_and_resuming_around_what_is_undone_is_bitwise_the_same(harmed, new_loop, tmp_path):
    undone = next(check for check in harmed.watch.checks if check.verdict == "undone")
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
        _assert_same(resumed.probe.trainer, harmed.probe.trainer)


def test_a_followed_training_saves_time_and_changes_nothing(harmed, new_loop, scene):
    plain = plain_trainer(scene, harmed.captured, TRAIN)
    loop = new_loop(Blinding(), follows=plain)
    for step in range(1, STEPS + 1):
        plain.train_until(step)
        loop.train_until(step)
    assert _verdicts(loop) == _verdicts(harmed)
    _assert_same(loop.trainer, harmed.trainer)


def test_harmless_rounds_are_kept(new_loop):
    mild = MixtureConfig(novel_prob=0.1, novel_weight=0.05)
    loop = new_loop(IdentityFixer(), mixture=mild, hold_back=replace(WATCHING, margin=5.0))
    loop.train_until(STEPS)
    assert loop.watch.num_rounds_undone == 0
    assert loop.num_rounds_done == 2
    assert loop.trainer.step == STEPS
    assert isinstance(loop.trainer.views, ViewMixture)
    names = {view.name for view in loop.held_back}
    assert names
    assert not names & {view.name for view in loop.probe.captured}
    assert names <= {view.name for view in loop.main.captured}
    # The probe's fixer never looks at what is held back.
    assert not names & {view.reference_name for view in loop.probe.pool[-1].views}


def test_without_giving_back_one_splat_does_without_the_views(new_loop):
    loop = new_loop(IdentityFixer(), hold_back=replace(WATCHING, give_back=False))
    loop.train_until(7)
    assert loop.probe is None
    assert len(loop.main.captured) == 4
    assert loop.watch.checks


AGAINST_PLAIN = HoldBackConfig(against="plain", margin=1.0, check_every=0.2, first_check=0.0)


@pytest.fixture(scope="module")
def six_photos():
    """The generated scene of the demo, small, of which six photos are trained on."""
    config = SyntheticConfig(layout="table", num_views=9, width=48, height=36, num_points=400, samples_per_axis=1)
    return normalized(generate_scene(3, config))


@pytest.fixture(scope="module")
def judged_loop(six_photos):
    captured = six_photos.views[:6]
    targets = np.stack([view.camera.T_world_cam for view in six_photos.views[6:]])

    def make(fixer, *, follows=None, num_rounds=2, **changes):
        strategy = AdcConfig(refine_start=1000, reset_every=0)
        config = ProgressiveConfig(
            train=TrainConfig(max_steps=200, sh_degree_every=20, strategy=strategy),
            rounds=EvenRounds(num_rounds=num_rounds, first=0.6, last=0.8),
            targets=HeldOutTargets(),
            mixture=MixtureConfig(novel_prob=0.5, novel_weight=3.0),
            hold_back=replace(AGAINST_PLAIN, **changes),
        )
        return ProgressiveTrainer(six_photos, captured, targets, fixer, config, follows=follows)

    return make


@pytest.fixture(scope="module")
def spoiled(judged_loop):
    """A loop with six photos whose fixer paints everything blue, at its end."""
    loop = judged_loop(Blinding())
    loop.train_until(200)
    return loop


@pytest.fixture(scope="module")
def plain_of_six(six_photos, judged_loop):
    plain = plain_trainer(six_photos, six_photos.views[:6], judged_loop(Blinding()).config.train)
    plain.train_until(200)
    return plain


@pytest.mark.long
def test_with_six_photos_wrong_colors_are_noticed_and_leave_the_whole_of_plain_training(spoiled, plain_of_six):
    assert len(spoiled.held_back) == 2
    undone = [check for check in spoiled.watch.checks if check.verdict == "undone"]
    assert len(undone) == 2
    assert all(check.psnr < check.plain_psnr - 1.0 for check in undone)
    assert spoiled.num_rounds_done == 2
    assert spoiled.novel is None
    assert spoiled.num_undone_steps == 0
    assert spoiled.trainer.step == 200
    _assert_same(spoiled.trainer, plain_of_six)
    _assert_same(spoiled.probe.trainer, spoiled.control.trainer)


def test_with_six_photos_renders_fed_back_are_kept(judged_loop, plain_of_six):
    loop = judged_loop(IdentityFixer())
    loop.train_until(200)
    assert [check.verdict for check in loop.watch.checks].count("undone") == 0
    assert loop.num_rounds_done == 2
    assert loop.novel is not None
    assert not torch.equal(loop.trainer.gaussians.sh0[:50], plain_of_six.gaussians.sh0[:50])


def test_a_training_that_gets_worse_everywhere_is_not_held_against_its_rounds():
    watch = Watch(replace(AGAINST_PLAIN, margin=0.3))
    for step, (psnr, plain_psnr) in enumerate([(20.0, 20.0), (18.0, 17.9), (16.0, 16.2), (16.5, 17.0), (15.0, 15.0)]):
        watch.judge(psnr, plain_psnr=plain_psnr, step=step, kept_step=step)
        assert watch.decide(planned=True, possible=True) == "round"
    assert [check.verdict for check in watch.checks] == ["better", "kept", "kept", "undone", "kept"]
    assert watch.num_rounds_undone == 1
    assert not watch.stopped


class GoodThenBad:
    """A fixer that changes nothing in its first round, and paints everything blue in the second."""

    def __init__(self, num_good):
        self.num_left = num_good

    def __call__(self, request):
        self.num_left -= len(request)
        return IdentityFixer()(request) if self.num_left >= 0 else Blinding()(request)


@pytest.mark.long
def test_only_the_bad_round_is_undone(judged_loop):
    # Two splats have their views fixed, three each.
    loop = judged_loop(GoodThenBad(6))
    loop.train_until(200)
    assert loop.num_rounds_done == 2
    assert loop.watch.num_rounds_undone == 1
    assert loop.novel.round_index == 0
    assert loop.trainer.step == 200
    # As if the second round had never been.
    once = judged_loop(IdentityFixer())
    once.marks = tuple(mark for mark in once.marks if mark.round_ is None or mark.round_.index == 0)
    once.train_until(200)
    _assert_same(loop.trainer, once.trainer)


def test_where_one_round_less_is_not_enough_all_are_undone(judged_loop, plain_of_six):
    loop = judged_loop(Blinding())
    # What the first round did is found at the end only, so that the second one is not all there is to undo.
    loop.watch.is_bad = lambda psnr, plain_psnr: loop.step > 160 and psnr < plain_psnr
    loop.train_until(200)
    assert [check.verdict for check in loop.watch.checks][-1] == "undone"
    assert loop.novel is None
    _assert_same(loop.trainer, plain_of_six)


@pytest.mark.long
def test_stopping_around_undone_rounds_with_six_photos_changes_nothing(spoiled, judged_loop, tmp_path):
    first = next(check.step for check in spoiled.watch.checks if check.verdict == "undone")
    for stop in (121, first - 1, first, first + 1):
        part = judged_loop(Blinding())
        part.train_until(stop)
        part.save(tmp_path / f"at_{stop}")
        resumed = judged_loop(Blinding())
        resumed.load(tmp_path / f"at_{stop}")
        assert resumed.step == stop
        resumed.train_until(200)
        assert resumed.watch.state_dict() == spoiled.watch.state_dict()
        _assert_same(resumed.trainer, spoiled.trainer)
        _assert_same(resumed.probe.trainer, spoiled.probe.trainer)


def test_a_followed_training_and_a_control_save_time_and_change_nothing(spoiled, judged_loop, six_photos):
    plain = plain_trainer(six_photos, six_photos.views[:6], spoiled.config.train)
    loop = judged_loop(Blinding(), follows=plain)
    for step in range(1, 201):
        plain.train_until(step)
        loop.train_until(step)
    assert loop.watch.state_dict() == spoiled.watch.state_dict()
    assert loop.same_as_plain
    _assert_same(loop.trainer, plain)


def test_without_rounds_nothing_is_undone_and_it_is_plain_training(judged_loop, plain_of_six):
    loop = judged_loop(IdentityFixer(), num_rounds=0)
    loop.train_until(200)
    _assert_same(loop.trainer, plain_of_six)
    assert [check.step for check in loop.watch.checks] == [200]


def test_states_go_with_the_trainer_that_keeps_them(new_loop, scene, tmp_path):
    loop = new_loop(IdentityFixer())
    kept = ProgressiveTrainer(scene, loop.captured, loop.T_world_target, loop.fixer, loop.config, states=tmp_path / "s")
    kept.train_until(7)
    assert [path.name for path in (tmp_path / "s").rglob("best")] == ["best"]
    del kept
    gc.collect()
    assert not list((tmp_path / "s").iterdir())


def _following(psnrs, *, planned=False, possible=True, **config):
    watch = Watch(HoldBackConfig(margin=0.1, **config))
    found = []
    for step, psnr in enumerate(psnrs, start=1):
        check = watch.judge(psnr, step=step, kept_step=step)
        found.append((check.verdict, watch.decide(planned=planned, possible=possible)))
    return watch, found


def test_a_watch_tries_the_other_thing_and_then_stops():
    watch, found = _following((10.0, 11.0, 10.5, 10.95, 10.6, 10.0))
    assert found == [
        ("better", "training"),
        ("better", "training"),
        ("undone", "round"),  # A round is brought forward.
        ("kept", "training"),
        ("undone", "round"),
        ("undone", None),
    ]
    assert watch.stopped
    assert watch.best is not None
    assert watch.best.psnr == 11.0
    again = Watch(watch.config)
    again.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    assert again.state_dict() == watch.state_dict()


def test_without_possible_rounds_one_failure_is_enough():
    assert _following((10.0, 9.0), possible=False)[1] == [("better", "training"), ("undone", None)]


def test_rounds_end_when_too_many_were_undone():
    _, found = _following((10.0, 9.0, 11.0, 10.0, 12.0, 13.0), planned=True, max_undone_rounds=2)
    assert [following for _, following in found] == ["round", "training", "round", "training", "training", "training"]


def test_marks_are_rounds_and_checks_between_them():
    plan = (Round(index=0, start_step=50), Round(index=1, start_step=62))
    assert [mark.step for mark in marks(plan, HoldBackConfig(check_every=0.2), max_steps=100, watched=False)] == [
        50,
        62,
    ]
    watched = marks(plan, HoldBackConfig(check_every=0.2), max_steps=100, watched=True)
    late = marks(plan, HoldBackConfig(check_every=0.1, first_check=0.3), max_steps=100, watched=True)
    assert [mark.step for mark in late] == [30, 40, 50, 62, 70, 80, 90, 100]
    rounds_only = marks(plan, HoldBackConfig(check_every=0.1, against="plain"), max_steps=100, watched=True)
    assert [mark.step for mark in rounds_only] == [50, 62, 70, 80, 90, 100]
    assert [(mark.step, mark.round_ is not None) for mark in watched] == [
        (20, False), (50, True), (62, True), (80, False), (100, False)
    ]  # fmt: skip


def test_few_views_hold_none_back_unless_asked():
    assert [HoldBackConfig().num_views(count) for count in (3, 6, 9, 12, 100)] == [0, 0, 0, 2, 6]
    asked = HoldBackConfig(min_views=4)
    assert [asked.num_views(count) for count in (3, 4, 6, 9, 100)] == [0, 1, 1, 1, 6]
    assert HoldBackConfig(share=0).num_views(50) == 0
    against_plain = HoldBackConfig(against="plain")
    assert [against_plain.num_views(count) for count in (3, 4, 5, 6, 12, 100)] == [0, 1, 1, 2, 2, 6]
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = (0.0, 1.0, 1.1, 2.0, 3.0)
    assert held_back_indices(poses, 1, extent=1.0) == [1]
    assert held_back_indices(poses, 2, extent=1.0)[0] == 1


def test_older_rounds_count_less(new_loop):
    off = HoldBackConfig(share=0)
    pool = PoolConfig(num_rounds=2, decay=0.5)
    loop = new_loop(IdentityFixer(), hold_back=off, pool=pool, rounds=EvenRounds(num_rounds=3, first=0.3, last=0.6))
    loop.train_until(STEPS)
    assert [novel.round_index for novel in loop.main.pool] == [1, 2]
    views = pool_view_set(loop.main.pool, loop.config.mixture, pool)
    assert views is not None
    assert [view.weight for view in views.views] == [2.5] * 3 + [5.0] * 3


def test_a_pool_of_rounds_survives_resuming(new_loop, tmp_path):
    changes = {"hold_back": HoldBackConfig(share=0), "pool": PoolConfig(num_rounds=2)}
    whole, part, resumed = (new_loop(Blinding(), **changes) for _ in range(3))
    whole.train_until(STEPS)
    stop = whole.rounds[1].start_step + 2
    part.train_until(stop)
    part.save(tmp_path / "saved")
    resumed.load(tmp_path / "saved")
    assert len(resumed.main.pool) == 2
    resumed.train_until(STEPS)
    _assert_same(resumed.trainer, whole.trainer)


@pytest.mark.long
@pytest.mark.parametrize("against", ["best", "plain"])
def test_a_whole_run_says_what_was_undone_and_resumes(against, tmp_path, monkeypatch):
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 2)
    config = SyntheticConfig(layout="table", num_views=8, width=40, height=32, num_points=100, samples_per_axis=1)
    write_scene(tmp_path / "table", generate_scene(5, config))
    settings = RunSettings(
        scene=str(tmp_path / "table"),
        max_steps=40,
        num_rounds=2,
        num_novel=3,
        novel_prob=0.9,
        novel_weight=50.0,
        hold_back=0.2,
        hold_back_against=against,
        hold_back_min_views=3,
        hold_back_margin=0.0,
        split="every:4",
    )
    whole, part = (RunFolder(tmp_path / name) for name in ("whole", "part"))
    list(Experiment(settings, whole, fixer=Blinding()).run())
    metrics = json.loads((whole.path / "metrics.json").read_text())
    held_back = metrics["held_back"]
    assert len(held_back["views"]) == (1 if against == "best" else 2)
    undone = [check["step"] for check in held_back["checks"] if check["verdict"] == "undone"]
    assert undone
    page = (whole.path / "report.html").read_text()
    if against == "best":
        assert held_back["kept_step"] < 40
        assert f"{len(undone)} tries lowered the score and were undone" in page
        assert ("training stopped early" in page) == held_back["stopped_early"]
    else:
        assert held_back["kept_step"] == 40
        assert f"{len(undone)} times rounds were undone" in page
    assert not whole.states.exists()
    list(Experiment(settings, part, fixer=Blinding()).run(stop_at=min(39, undone[0] + 1)))
    # As a run leaves it that is killed.
    (part.states / "difix3d-states-0" / "best").mkdir(parents=True)
    list(Experiment(settings, part, resume=True, fixer=Blinding()).run())
    for name in ("plain.ply", "loop.ply", "metrics.json", "metrics.jsonl"):
        assert (part.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert not part.states.exists()
