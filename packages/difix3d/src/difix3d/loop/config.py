"""The constants of the progressive method; no torch here, so that command lines answer at once."""

from dataclasses import dataclass, field
from typing import Literal

from difix3d.loop.target_config import AroundTargets, Targets
from splat_recon.config import TrainConfig

RELEASED_FIX_STEPS = (3000, 6000, *range(8000, 60_001, 2000))
"""Steps after which the released code fixes novel views, in a run of 60 000 steps."""

VALIDATION_FRACTION = 0.15
"""Fraction of the captured views that are validation photos where no other is asked for."""


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundsConfig:
    """When novel views are rendered and fixed: spread evenly over a part of the run, or after named steps."""

    num_rounds: int = 5
    """How often novel views are rendered and fixed; 0 is plain training. Released code: 29 times in 60 000 steps."""

    first_round: float = 0.5
    """Fraction of the run after which the first round comes: before it, plain training. Released code: 0.05, but it
    starts from a splat that another program has trained: rounds on a rough splat cost more than they give."""

    last_round: float = 0.85
    """Fraction of the run after which the last round comes; what follows it is learned from that round's views."""

    round_steps: tuple[int, ...] | None = None
    """Optimizer steps after which the rounds come instead, rising. Released code: 3000, 6000, then every 2000 from 8000
    to 60 000 (the last of which, at the end of the run, can change nothing)."""

    num_probe_views: int = 4
    """A round first fixes so many of its novel views, those farthest from any photo. Where the fixer leaves even these
    as they are, bit for bit, the others are taken as they are too, and no time is spent on them. 0 fixes all. Released
    code: all."""

    learn_unchanged: bool = False
    """Whether renders that the fixer left as they are join the training too. They show what the splat shows already,
    mistakes included, and take steps away from photos; off, a round that changes nothing is plain training. On with
    the model none it is the control: renders fed back unfixed. Released code: on."""

    def __post_init__(self) -> None:
        for name in ("num_rounds", "num_probe_views"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        _check_fraction("first_round", self.first_round)
        _check_fraction("last_round", self.last_round)
        if self.last_round < self.first_round:
            raise ValueError(f"last_round must not be before first_round, got {self.last_round} < {self.first_round}")
        steps = self.round_steps
        if steps is not None and (not steps or steps[0] < 1 or list(steps) != sorted(set(steps))):
            raise ValueError(f"round_steps must be positive and rising, one at least, got {steps}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """Validation photos: captured views that a second splat is trained without, so that harm is noticed and undone.

    Beside the splat that learns from all captured views, the second one learns from all but the validation photos, and
    goes through rounds of its own. It is scored on them; what lowers the score is undone in both. So nothing is lost to
    the result but time.
    """

    fraction: float | None = None
    """Fraction of the captured views that are validation photos, rounded to whole ones, at least one; 0 keeps every
    round, and trains one splat only. None: 0.15, and 0 for the presets released and paper, and for finished splats,
    which have seen all views."""

    min_views: int = 12
    """Scenes of fewer captured views have no validation photos, and keep every round. With few views one of them
    says little about the others: without it the second splat may get worse there for steps in which the splat of all
    views gets better everywhere."""

    max_views: int = 6
    """Most validation photos."""

    max_drop_db: float = 0.3
    """Loss of PSNR on the validation photos, in dB below the best, from which what was done since the last validation
    is undone. The score of one view moves by tenths of a dB by itself."""

    first: float = 0.2
    """Fraction of the run before which nothing is scored between rounds: a splat of few steps is a blur, and scores as
    one."""

    max_undone_rounds: int = 2
    """After so many rounds that were undone no more are made."""

    validate_every: float = 0.1
    """Fraction of the run between two scores where no rounds are; there is one at every round and at the end."""

    def __post_init__(self) -> None:
        if self.fraction is not None and not 0 <= self.fraction < 1:
            raise ValueError(f"fraction must be in [0, 1), got {self.fraction}")
        if self.min_views < 2 or self.max_views < 1 or self.max_undone_rounds < 1:
            raise ValueError(
                f"min_views must be at least 2, max_views and max_undone_rounds at least 1, got {self.min_views}, "
                f"{self.max_views} and {self.max_undone_rounds}"
            )
        if not 0 <= self.max_drop_db < float("inf"):
            raise ValueError(f"max_drop_db must be at least 0 and finite, got {self.max_drop_db}")
        if not 0 < self.validate_every <= 1:
            raise ValueError(f"validate_every must be in (0, 1], got {self.validate_every}")
        _check_fraction("first", self.first)

    def num_views(self, num_captured: int) -> int:
        """How many of so many captured views are validation photos."""
        fraction = VALIDATION_FRACTION if self.fraction is None else self.fraction
        if fraction == 0 or num_captured < self.min_views:
            return 0
        return min(max(1, round(fraction * num_captured)), self.max_views)


@dataclass(frozen=True, kw_only=True, slots=True)
class SteppingConfig:
    """How far novel views move per round."""

    step_distance: float = 0.25
    """Length of a step, in `unit`. Released code: 0.5 world units, whatever the scale."""

    unit: Literal["extent", "world"] = "extent"
    """What lengths are measured in, here and where poses are compared: the scene's extent, or units of its normalized
    frame, as in the released code."""

    max_turn_degrees: float | None = None
    """A step turns no farther than this. None: by the same fraction of the way as the center moves, as in the released
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

    unseen_weight: float = 1.0
    """Factor of pixels whose surface no captured view sees, in [0, 1]: what they show is guessed. It is 1 where at
    least one view sees it, and between where that is in doubt, by the splat's depth. 1: guesses count like the rest.
    Released code: 1."""

    photo_tolerance: float | None = None
    """Difference in color between a fixed view and the nearest photos, in [0, 1], at which a pixel counts half; it
    falls on with the square of the difference. The photos are reprojected by the splat's depth; pixels that none of
    them sees count as before. None: photos are not compared. Released code: None."""

    def __post_init__(self) -> None:
        _check_fraction("novel_prob", self.novel_prob)
        _check_fraction("unseen_weight", self.unseen_weight)
        if self.photo_tolerance is not None:
            _check_positive("photo_tolerance", self.photo_tolerance)
        _check_fraction("alpha_threshold", self.alpha_threshold)
        for name, value in (("novel_weight", self.novel_weight), ("captured_weight", self.captured_weight)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FixingConfig:
    """What a fixer gets of novel views, in either loop."""

    num_references: int = 1
    """How many captured views, the nearest first, a novel view is fixed with, all in one call. Released code: 1."""

    fix_batch_size: int = 4
    """How many views the fixer gets at a time. Released code: 1."""

    def __post_init__(self) -> None:
        for name in ("fix_batch_size", "num_references"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressiveConfig(FixingConfig):
    """The progressive method: a splat, and rounds in which fixed novel views join its training."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """The splat's own training."""

    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    """When novel views are rendered and fixed."""

    min_remaining: float = 0.05
    """A round with less than this fraction of the run left is dropped: its views could not be learned from."""

    targets: Targets = field(default_factory=AroundTargets)
    """Where novel views go."""

    stepping: SteppingConfig = field(default_factory=SteppingConfig)
    """How far they go per round."""

    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """How much they count."""

    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What notices whether they help."""

    seed: int = 42
    """Seed of the targets. Released code: 42, for everything."""

    def __post_init__(self) -> None:
        FixingConfig.__post_init__(self)
        _check_fraction("min_remaining", self.min_remaining)
