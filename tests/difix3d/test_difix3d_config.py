"""Configs, settings and the schedule: ranges, presets, and the released constants."""

import importlib
import json
import subprocess
import sys

import pytest

from difix3d import (
    InputError,
    MixtureConfig,
    ProgressiveConfig,
    RoundsConfig,
    RunSettings,
    SteppingConfig,
    ValidationConfig,
    released_config,
)
from difix3d.loop.presets import released_train_config
from difix3d.loop.schedule import round_steps
from difix3d.loop.target_config import (
    AroundTargets,
    FileTargets,
    HeldOutTargets,
    OrbitTargets,
    PathTargets,
    PerturbedTargets,
    SpiralTargets,
)
from difix3d.run.configs import progressive_config
from difix3d.run.defaults import for_photos, resolved
from difix3d.run.estimate import estimate, in_words
from difix3d.run.settings import TARGETS
from splat_recon import AdcConfig, McmcConfig, TrainConfig


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MixtureConfig(novel_prob=1.5), "novel_prob must be in"),
        (lambda: MixtureConfig(novel_weight=-1.0), "novel_weight must be at least 0"),
        (lambda: MixtureConfig(alpha_threshold=2.0), "alpha_threshold must be in"),
        (lambda: RoundsConfig(first_round=0.9, last_round=0.1), "last_round must not be before first_round"),
        (lambda: RoundsConfig(num_rounds=-1), "num_rounds must be at least 0"),
        (lambda: RoundsConfig(round_steps=(5, 3)), "round_steps must be positive and rising"),
        (lambda: AroundTargets(num_views=0), "num_views"),
        (lambda: PathTargets(num_views=0), "num_views"),
        (lambda: SteppingConfig(step_distance=0.0), "step_distance must be positive"),
        (lambda: OrbitTargets(num_views=0), "num_views must be at least 1"),
        (lambda: SpiralTargets(num_views=0), "num_views must be at least 1"),
        (lambda: PerturbedTargets(turn_degrees=200.0), "turn_degrees in"),
        (lambda: SteppingConfig(max_turn_degrees=0.0), "max_turn_degrees must be positive"),
        (lambda: ValidationConfig(fraction=1.0), "fraction must be in"),
        (lambda: ValidationConfig(max_drop_db=-1.0), "max_drop_db must be at least 0"),
        (lambda: ValidationConfig(validate_every=0.0), "validate_every must be in"),
        (lambda: ValidationConfig(first=1.5), "first must be in"),
        (lambda: ValidationConfig(min_views=1), "min_views must be at least 2"),
        (lambda: MixtureConfig(photo_tolerance=-0.1), "photo_tolerance must be positive"),
        (lambda: MixtureConfig(unseen_weight=1.5), "unseen_weight must be in"),
        (lambda: RunSettings(mixture=MixtureConfig(unseen_weight=-0.5)), "unseen_weight must be in"),
        (lambda: RunSettings(mixture=MixtureConfig(photo_tolerance=0.0)), "photo_tolerance must be positive"),
        (lambda: ProgressiveConfig(num_references=0), "num_references must be at least 1"),
        (lambda: RunSettings(stepping=SteppingConfig(max_turn_degrees=-5.0)), "max_turn_degrees must be positive"),
        (lambda: RunSettings(validation=ValidationConfig(min_views=1)), "min_views must be at least 2"),
        (lambda: RunSettings(validation=ValidationConfig(fraction=-0.1)), "fraction must be in"),
        (lambda: RunSettings(targets="no/such/file"), "or a file with cameras"),
        (lambda: ProgressiveConfig(fix_batch_size=0), "fix_batch_size must be at least 1"),
        (lambda: RunSettings(max_size=3), "max_size must be at least 16"),
        (lambda: RunSettings(mixture=MixtureConfig(novel_prob=-0.1)), "novel_prob must be in"),
    ],
)
def test_values_out_of_range_are_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def steps_of(rounds, max_steps):
    return round_steps(ProgressiveConfig(train=TrainConfig(max_steps=max_steps), rounds=rounds))


def test_even_rounds_keep_their_place_in_any_run():
    assert steps_of(RoundsConfig(num_rounds=3, first_round=0.4, last_round=0.8), 100) == (40, 60, 80)
    assert steps_of(RoundsConfig(num_rounds=9), 3) == (2,)
    assert steps_of(RoundsConfig(num_rounds=0), 100) == ()


def test_rounds_that_nothing_could_be_learned_from_are_left_out():
    assert steps_of(RoundsConfig(round_steps=(10, 94, 96, 100, 200)), 100) == (10, 94)


@pytest.mark.reference
def test_released_config_has_the_released_constants(reference_data):
    released = json.loads((reference_data / "gsplat" / "config_defaults.json").read_text())["default"]
    config = released_config(released_train_config(released["max_steps"]))
    assert config.rounds.round_steps is not None
    assert list(config.rounds.round_steps) == released["fix_steps"]
    assert config.mixture.novel_weight == released["novel_data_lambda"]
    assert config.train.ssim_weight == released["ssim_lambda"]
    assert config.train.sh_degree_every == released["sh_degree_interval"]
    strategy = config.train.strategy
    assert isinstance(strategy, AdcConfig)
    for ours, theirs in (
        ("refine_start", "refine_start_iter"),
        ("refine_stop", "refine_stop_iter"),
        ("refine_every", "refine_every"),
        ("reset_every", "reset_every"),
        ("grow_grad2d", "grow_grad2d"),
    ):
        assert getattr(strategy, ours) == released["strategy"][theirs], ours
    plan = round_steps(config)
    assert plan[-1] < config.train.max_steps


def test_released_preset_is_as_described():
    config = progressive_config(resolved(RunSettings(preset="released"), "cuda"))
    assert config.train.max_steps == 60_000
    assert config.rounds.round_steps is not None
    assert config.rounds.round_steps[:4] == (3000, 6000, 8000, 10_000)
    assert config.rounds.round_steps[-1] == 60_000
    assert len(config.rounds.round_steps) == 29
    assert (config.stepping.step_distance, config.stepping.unit, config.stepping.max_turn_degrees) == (
        0.5,
        "world",
        None,
    )
    mixture = config.mixture
    assert (mixture.novel_prob, mixture.novel_weight, mixture.captured_weight) == (0.3, 0.3, 1.5)
    assert mixture.alpha_threshold == 0.5
    assert (mixture.unseen_weight, mixture.photo_tolerance) == (1.0, None)
    assert config.validation.fraction == 0
    assert isinstance(config.targets, HeldOutTargets)
    rates = config.train.learning_rates
    expected = (1.6e-5, 1e-3, 2e-4, 1e-2, 5e-5, 2.5e-6)
    found = (rates.means, rates.scales, rates.quats, rates.opacities, rates.sh0, rates.sh_rest)
    assert found == pytest.approx(expected)


def test_presets_of_others_scale_with_the_run():
    short = progressive_config(resolved(RunSettings(preset="released", max_steps=6000), "cpu"))
    assert short.rounds.round_steps is not None
    assert short.rounds.round_steps[:4] == (300, 600, 800, 1000)
    assert short.train.strategy.refine_stop == 1500
    paper = progressive_config(resolved(RunSettings(preset="paper"), "cuda"))
    assert paper.train.max_steps == 30_000
    assert paper.rounds.round_steps is not None
    assert paper.rounds.round_steps == tuple(range(1500, 30_001, 1500))
    assert paper.train.learning_rates == TrainConfig().learning_rates
    short = progressive_config(resolved(RunSettings(preset="paper", max_steps=3000), "cpu"))
    assert short.rounds.round_steps is not None
    assert short.rounds.round_steps[:2] == (150, 300)
    settings = RunSettings(preset="released", targets="orbit", validation=ValidationConfig(fraction=0.2))
    asked = progressive_config(resolved(settings, "cpu"))
    assert isinstance(asked.targets, OrbitTargets)
    assert asked.validation.fraction == 0.2


def test_few_photos_are_regularized_where_the_training_is_our_own():
    def dropout(settings: RunSettings, num_photos: int) -> float:
        return progressive_config(for_photos(resolved(settings, "cpu"), num_photos)).train.dropout

    assert dropout(RunSettings(), 6) == 0.1
    assert dropout(RunSettings(), 40) == 0
    assert dropout(RunSettings(regularized=False), 6) == 0
    assert dropout(RunSettings(regularized=True), 40) == 0.1
    assert dropout(RunSettings(preset="released"), 6) == 0
    assert dropout(RunSettings(start="splat.ply"), 6) == 0


def test_the_background_of_few_photos_is_theirs_and_of_a_finished_splat_its_own():
    def background(settings: RunSettings, num_photos: int) -> tuple[float, float, float]:
        known = {"background": (0.1, 0.2, 0.3), "start_background": (0.7, 0.8, 0.9)}
        return progressive_config(for_photos(resolved(settings, "cpu"), num_photos, **known)).train.background

    assert background(RunSettings(), 6) == (0.1, 0.2, 0.3)
    assert background(RunSettings(), 40) == background(RunSettings(start="splat.ply"), 6) == (0.7, 0.8, 0.9)
    assert background(RunSettings(background=(0.0, 1.0, 0.0)), 6) == (0.0, 1.0, 0.0)
    asked = RunSettings(background=(0.0, 1.0, 0.0))
    assert RunSettings.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    with pytest.raises(ValueError, match="background must be three values"):
        RunSettings(background=(0.0, 1.0, 2.0))


def test_settings_resolve_to_configs():
    demo = resolved(RunSettings(), "cpu")
    unset = (
        "quality",
        "scene",
        "start",
        "mixture.photo_tolerance",
        "stepping.max_turn_degrees",
        "fixer.base",
        "fixer.batch_size",
        "rounds.round_steps",
    )
    assert None not in [value for name, value in for_photos(demo, 6).flat().items() if not name.endswith(unset)]
    assert progressive_config(demo).validation == ValidationConfig(fraction=0.15)
    assert isinstance(progressive_config(demo).targets, AroundTargets)
    assert isinstance(progressive_config(resolved(RunSettings(targets="path"), "cpu")).targets, PathTargets)
    for name, kind in TARGETS.items():
        assert isinstance(progressive_config(resolved(RunSettings(targets=name), "cpu")).targets, kind)
    from_file = progressive_config(resolved(RunSettings(targets=__file__), "cpu")).targets
    assert from_file == FileTargets(path=__file__)
    asked = RunSettings(mixture=MixtureConfig(unseen_weight=0.2, photo_tolerance=0.1))
    config = progressive_config(resolved(asked, "cpu"))
    assert (config.mixture.unseen_weight, config.mixture.photo_tolerance) == (0.2, 0.1)
    own = resolved(RunSettings(scene="somewhere", targets="test"), "cuda")
    assert own.split == "auto"
    assert own.sparse is None
    assert own.max_steps != demo.max_steps
    assert isinstance(progressive_config(own).targets, HeldOutTargets)
    released = resolved(RunSettings(preset="released"), "cuda")
    assert released.targets == "test"
    assert progressive_config(released).train.max_steps == 60_000
    with pytest.raises(ValueError, match="resolved"):
        progressive_config(RunSettings())


def test_density_control_can_be_chosen():
    config = progressive_config(resolved(RunSettings(strategy="mcmc", max_gaussians=500, max_steps=3000), "cpu"))
    assert isinstance(config.train.strategy, McmcConfig)
    assert config.train.strategy.cap_max == 500
    assert config.train.opacity_reg == 0.01
    with pytest.raises(ValueError, match="its own density control"):
        RunSettings(strategy="mcmc", preset="released")


def test_settings_survive_json_and_name_what_is_unknown():
    settings = RunSettings(scene="a", max_steps=7, targets="path", rounds=RoundsConfig(round_steps=(2, 4)))
    assert settings.changed("mixture.novel_prob", 0.7).flat() == settings.flat() | {"mixture.novel_prob": 0.7}
    assert RunSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(InputError, match="unknown settings: typo"):
        RunSettings.from_dict({"typo": 1})
    with pytest.raises(InputError, match=r"unknown settings: mixture\.typo"):
        RunSettings.from_dict({"mixture": {"typo": 1}})
    with pytest.raises(InputError, match="mixture cannot be 3"):
        RunSettings.from_dict({"mixture": 3})
    assert RunSettings.from_dict({"mixture": {"novel_prob": 0.7}}).mixture.novel_weight == MixtureConfig().novel_weight
    with pytest.raises(InputError, match="max_steps"):
        RunSettings.from_dict({"max_steps": -1})


def nested(name, value):
    """A setting as a dictionary of dictionaries."""
    outer, _, inner = name.rpartition(".")
    return nested(outer, {inner: value}) if outer else {inner: value}


@pytest.mark.parametrize("name", sorted(RunSettings().flat()))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 10**400, [], {}, -1e300])
def test_settings_of_another_kind_are_refused_whatever_the_field(name, bad):
    with pytest.raises(InputError):
        RunSettings.from_dict(nested(name, bad))


def test_how_long_runs_take_is_foreseen():
    """Processor seconds of two runs as measured (docs/benchmarks.md), at 12 ms for the reference step."""
    draft = RunSettings(scene="s", quality="draft")
    of_photos = estimate(draft, "cpu", num_photos=11, from_photos=True, step_seconds=0.012)
    assert 36 / 1.5 < of_photos.total < 36 * 1.5
    demo = estimate(RunSettings(), "cpu", num_photos=24, from_photos=False, step_seconds=0.012)
    assert 72 / 1.5 < demo.total < 72 * 1.5
    assert of_photos.before("train") == sum(of_photos.seconds[name] for name in ("cameras", "prepare", "stereo"))
    totals = [
        estimate(RunSettings(scene="s", quality=name), "cpu", num_photos=40, from_photos=False, step_seconds=1).total
        for name in ("draft", "good", "best")
    ]
    assert totals == sorted(totals)
    assert [in_words(seconds) for seconds in (0.2, 80, 600, 9000)] == ["1 s", "80 s", "10 min", "2.5 h"]


def test_settings_and_package_root_need_no_torch():
    code = "import sys, difix3d, difix3d.run.settings, difix3d.run.run_folder; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist():
    root = importlib.import_module("difix3d")
    assert all(getattr(root, name) is not None for name in root.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        root.no_such_name  # noqa: B018
