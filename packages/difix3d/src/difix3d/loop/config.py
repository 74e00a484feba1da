"""What the progressive method can be told; no torch here, so that command lines answer at once."""

from dataclasses import dataclass, field, replace
from typing import Literal

from difix3d.loop.target_config import AroundTargets, HeldOutTargets, Targets
from splat_recon.config import AdcConfig, LearningRates, TrainConfig

RELEASED_STEPS = 60_000
"""Steps of the released code's run."""

PAPER_STEPS, PAPER_FIX_EVERY = 30_000, 1500
"""The paper fixes novel views every 1500 steps; it does not say of how many: 30 000 is gsplat's run."""

RELEASED_FIX_STEPS = (3000, 6000, *range(8000, 60_001, 2000))
"""Steps after which the released code fixes novel views, in a run of 60 000 steps."""


MIN_VIEWS_AGAINST_PLAIN = 4
"""Fewest captured views of which one is held back to compare a probe with plain training: three are left to it."""

TWO_VIEWS_AGAINST_PLAIN = 6
"""Fewest captured views of which two are held back for that: two undo good rounds less often than one does."""


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvenRounds:
    """Rounds spread evenly over a part of the run, whatever its length."""

    num_rounds: int = 5
    """How often novel views are rendered and fixed. Released code: 29 times in 60 000 steps."""

    first: float = 0.5
    """Fraction of the run after which the first round comes: before it, plain training. Released code: 0.05, but it
    starts from a splat that another program has trained: rounds on a rough splat cost more than they give."""

    last: float = 0.85
    """Fraction of the run after which the last round comes; what follows it is learned from that round's views."""

    def __post_init__(self) -> None:
        if self.num_rounds < 0:
            raise ValueError(f"num_rounds must be at least 0, got {self.num_rounds}")
        _check_fraction("first", self.first)
        _check_fraction("last", self.last)
        if self.last < self.first:
            raise ValueError(f"last must not be before first, got {self.last} < {self.first}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRounds:
    """Rounds after named steps."""

    steps: tuple[int, ...] = RELEASED_FIX_STEPS
    """Optimizer steps after which novel views are rendered and fixed, rising. Released code: 3000, 6000, then every
    2000 from 8000 to 60 000 (the last of which, at the end of the run, can change nothing)."""

    def __post_init__(self) -> None:
        if any(step < 1 for step in self.steps) or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps must be positive and rising, got {self.steps}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldBackConfig:
    """Captured views that a training does not see, so that harm is noticed and undone.

    Beside the splat that learns from all captured views, a second one, the probe, learns from all but those held back,
    and goes through rounds of its own. At every check it is scored on the views held back; what lowers the score is
    undone in both. So nothing is lost to the result but time.
    """

    against: Literal["best", "plain"] = "best"
    """What the score is compared with. best: the probe's best score so far; steps that end below it are undone, and
    training stops where nothing helps any more. plain: a third splat that learns from the same views as the probe,
    without rounds. That judges rounds and not the training: both splats may get worse on the views held back, by
    learning the others by heart, and only a round after which the probe is worse than plain training is undone; its
    steps are done again without it. So a run never stops early, and few views can judge. It costs one more training."""

    share: float = 0.15
    """Share of the captured views that is held back, rounded to whole views, at least one, and two of six or more to be
    compared with plain training; 0 trusts every round, and trains one splat only. Scenes of fewer than `min_views`
    captured views hold nothing back."""

    min_views: int = 12
    """Fewest captured views of which some are held back to be compared with the best score. With few views one of them
    is no judge of the others: without it the probe may get worse there for steps in which the splat of all views gets
    better everywhere. Compared with plain training, 4 are enough."""

    max_views: int = 6
    """Most views that are held back."""

    give_back: bool = True
    """Whether the result is a second splat that learns from the views held back too, and that follows every decision.
    False saves its time, and does without those views for good."""

    margin: float = 0.3
    """Loss of PSNR on the views held back, in dB below what it is compared with, from which a try is undone. The score
    of one view moves by tenths of a dB by itself."""

    first_check: float = 0.2
    """Fraction of the run before which nothing is checked: a splat of few steps is a blur, and scores as one."""

    max_undone_rounds: int = 2
    """After so many rounds that were undone no more are made."""

    check_every: float = 0.1
    """Fraction of the run between two checks where no rounds are; there is one at every round and at the end."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share must be in [0, 1), got {self.share}")
        if self.min_views < 2 or self.max_views < 1 or self.max_undone_rounds < 1:
            raise ValueError(
                f"min_views must be at least 2, max_views and max_undone_rounds at least 1, got {self.min_views}, "
                f"{self.max_views} and {self.max_undone_rounds}"
            )
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"margin must be at least 0 and finite, got {self.margin}")
        if not 0 < self.check_every <= 1:
            raise ValueError(f"check_every must be in (0, 1], got {self.check_every}")
        _check_fraction("first_check", self.first_check)

    def num_views(self, num_captured: int) -> int:
        """How many of so many captured views are held back."""
        fewest = self.min_views if self.against == "best" else MIN_VIEWS_AGAINST_PLAIN
        if self.share == 0 or num_captured < fewest:
            return 0
        least = 2 if self.against == "plain" and num_captured >= TWO_VIEWS_AGAINST_PLAIN else 1
        return min(max(least, round(self.share * num_captured)), self.max_views)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """Which rounds' novel views take part in training."""

    num_rounds: int = 1
    """The newest so many. Released code: 1."""

    decay: float = 0.5
    """Factor of a view's weight for each round that has come after its own, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {self.num_rounds}")
        _check_fraction("decay", self.decay)


Rounds = EvenRounds | StepRounds


@dataclass(frozen=True, kw_only=True, slots=True)
class SteppingConfig:
    """How far novel views move per round."""

    step_distance: float = 0.25
    """Length of a step, in `unit`. Released code: 0.5 world units, whatever the scale."""

    unit: Literal["extent", "world"] = "extent"
    """What lengths are measured in, here and where poses are compared: the scene's extent, or units of its normalized
    frame, as in the released code."""

    max_turn_degrees: float | None = None
    """A step turns no farther than this. None: by the same share of the way as the center moves, as in the released
    code."""

    rotation_weight: float = 1.0
    """How many units count as much as one radian when poses are compared. Released code: 1."""

    def __post_init__(self) -> None:
        _check_positive("step_distance", self.step_distance)
        if self.max_turn_degrees is not None:
            _check_positive("max_turn_degrees", self.max_turn_degrees)
        if not 0 <= self.rotation_weight < float("inf"):
            raise ValueError(f"rotation_weight must be at least 0 and finite, got {self.rotation_weight}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureConfig:
    """How captured and fixed views share the training steps."""

    novel_prob: float = 0.3
    """Probability that a step uses a fixed view, in [0, 1]. Released code: 0.3."""

    novel_weight: float = 0.2
    """Factor of the loss at steps with a fixed view. Released code: 0.3, beside 1.5 for captured views; ours is the
    same ratio beside 1, so that thresholds on gradients keep their meaning."""

    captured_weight: float = 1.0
    """Factor of the loss at steps with a captured view, once fixed views take part. Released code: 1.5."""

    alpha_threshold: float = 0.5
    """Pixels of a fixed view count where the render's opacity is above this. Released code: 0.5."""

    soft_alpha: bool = False
    """Whether pixels that count do so by their opacity, rather than all alike. Released code: all alike."""

    agreement: float | None = None
    """Difference between fixed and rendered color, in [0, 1], at which a pixel counts half; it falls on with the
    square of the difference. None: a fix is believed however much it changes. Released code: None."""

    unseen_weight: float = 1.0
    """Factor of pixels that show a place which no captured view sees, in [0, 1]: what they show is guessed. It is 1
    where at least one view sees the place, and between where that is in doubt. Places are found by the splat's depth.
    1: guesses count like the rest. Released code: 1."""

    reference_agreement: float | None = None
    """Difference in color between a fixed view and the nearest photos, in [0, 1], at which a pixel counts half; it
    falls on with the square of the difference. The photos are reprojected by the splat's depth; pixels whose places
    none of them sees count as before. None: photos are not compared. Released code: None."""

    def __post_init__(self) -> None:
        _check_fraction("novel_prob", self.novel_prob)
        _check_fraction("unseen_weight", self.unseen_weight)
        for name in ("agreement", "reference_agreement"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        _check_fraction("alpha_threshold", self.alpha_threshold)
        for name, value in (("novel_weight", self.novel_weight), ("captured_weight", self.captured_weight)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig:
    """A finished splat to begin with."""

    path: str
    """The file or folder."""

    kind: Literal["checkpoint", "ply"]
    """A checkpoint (a run's folder, or gsplat's ckpt_STEP_rankR.pt, the files of all ranks beside it), or a splat file
    in COLMAP's frame."""

    frame: Literal["normalized", "colmap"] = "normalized"
    """Frame of a checkpoint of gsplat: its normalized one, or COLMAP's, where it was told not to normalize."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressiveConfig:
    """The progressive method: a splat, and rounds in which fixed novel views join its training."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """The splat's own training."""

    rounds: Rounds = field(default_factory=EvenRounds)
    """When novel views are rendered and fixed."""

    min_remaining: float = 0.05
    """A round with less than this fraction of the run left is dropped: its views could not be learned from."""

    targets: Targets = field(default_factory=AroundTargets)
    """Where novel views go."""

    stepping: SteppingConfig = field(default_factory=SteppingConfig)
    """How far they go per round."""

    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """How much they count."""

    pool: PoolConfig = field(default_factory=PoolConfig)
    """How long they count."""

    hold_back: HoldBackConfig = field(default_factory=HoldBackConfig)
    """What notices whether they help."""

    num_references: int = 1
    """How many captured views, the nearest first, a novel view is fixed with, all in one call. Released code: 1."""

    fix_batch_size: int = 4
    """How many views the fixer gets at a time. Released code: 1."""

    num_probe_views: int = 4
    """A round first fixes so many of its novel views, those farthest from any photo. Where the fixer leaves even these
    as they are, bit for bit, the others are taken as they are too, and no time is spent on them. 0 fixes all. Released
    code: all."""

    seed: int = 42
    """Seed of the targets. Released code: 42, for everything."""

    def __post_init__(self) -> None:
        _check_fraction("min_remaining", self.min_remaining)
        if self.num_probe_views < 0:
            raise ValueError(f"num_probe_views must be at least 0, got {self.num_probe_views}")
        for name in ("fix_batch_size", "num_references"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


RELEASED_LEARNING_RATES = LearningRates(
    means=1.6e-4 / 10,
    scales=5e-3 / 5,
    quats=1e-3 / 5,
    opacities=5e-2 / 5,
    sh0=2.5e-3 / 50,
    sh_rest=2.5e-3 / 20 / 50,
)
"""The released code's rates, for going on from a finished splat; it takes them from scratch too."""


def released_train_config(max_steps: int, strategy: AdcConfig | None = None, *, seed: int = 42) -> TrainConfig:
    """The released code's training of the splat: gsplat's intervals in 60 000 steps and lower rates, scaled.

    Args:
        max_steps: Length of the run.
        strategy: Density control, its intervals those of a run of 60 000 steps; None: gsplat's.
        seed: Of everything random.
    """
    config = TrainConfig(max_steps=RELEASED_STEPS, strategy=strategy or AdcConfig(), seed=seed)
    return replace(config, learning_rates=RELEASED_LEARNING_RATES).scaled_to(max_steps)


def released_config(train: TrainConfig) -> ProgressiveConfig:
    """The released code's constants around a given training of the splat, to whose length its rounds are scaled."""
    return ProgressiveConfig(
        train=train,
        rounds=StepRounds(steps=_scaled_steps(RELEASED_FIX_STEPS, train.max_steps / RELEASED_STEPS)),
        targets=HeldOutTargets(),
        stepping=SteppingConfig(step_distance=0.5, unit="world", max_turn_degrees=None),
        mixture=MixtureConfig(novel_prob=0.3, novel_weight=0.3, captured_weight=1.5),
        pool=PoolConfig(num_rounds=1),
        hold_back=HoldBackConfig(share=0),
        fix_batch_size=1,
        num_probe_views=0,
    )


def paper_config(train: TrainConfig) -> ProgressiveConfig:
    """The paper's schedule, a round every 1500 of 30 000 steps, scaled; what it does not say is the released code's."""
    steps = range(PAPER_FIX_EVERY, PAPER_STEPS + 1, PAPER_FIX_EVERY)
    rounds = StepRounds(steps=_scaled_steps(tuple(steps), train.max_steps / PAPER_STEPS))
    return replace(released_config(train), rounds=rounds)


def _scaled_steps(steps: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(sorted({max(1, round(step * factor)) for step in steps}))
