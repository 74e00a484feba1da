"""What a run of the whole comparison is asked to do, flat and JSON-like; no torch here."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from difix3d.distillation_config import DistillationConfig
from difix3d.errors import InputError
from difix3d.loop.config import (
    PAPER_STEPS,
    RELEASED_LEARNING_RATES,
    RELEASED_STEPS,
    EvenRounds,
    HoldBackConfig,
    MixtureConfig,
    PoolConfig,
    ProgressiveConfig,
    StartConfig,
    SteppingConfig,
    paper_config,
    released_config,
    released_train_config,
)
from difix3d.loop.target_config import (
    AroundTargets,
    CoverageTargets,
    FileTargets,
    HeldOutTargets,
    OrbitTargets,
    PathTargets,
    PerturbedTargets,
    SpiralTargets,
    SpreadTargets,
    Targets,
)
from difix_model.gate.config import GateName
from difix_model.opening import FixerConfig, Precision
from splat_recon.config import FEW_PHOTOS, AdcConfig, TrainConfig, regularized_for
from splat_recon.config_values import check_kinds
from splat_render.files.background import BLACK

TARGETS: dict[str, type] = {
    "photos-between": AroundTargets,
    "around": AroundTargets,
    "path": PathTargets,
    "orbit": OrbitTargets,
    "spiral": SpiralTargets,
    "perturbed": PerturbedTargets,
    "coverage": CoverageTargets,
    "spread": SpreadTargets,
    "test": HeldOutTargets,
}
"""Names of targets; `around` is an older name of `photos-between`."""

DEMO_STEPS = 1600
DEMO_SIZE = 256
DEMO_GAUSSIANS = 12_000
DEMO_SPARSE = 6
DEMO_SPLIT = "every:3"
"""The demo: a generated scene, few photos, minutes on two cores."""

DEFAULT_STEPS = {"cpu": 3000, "cuda": 30_000}
DEFAULT_SIZE = {"cpu": 384, "cuda": 1600}
DEFAULT_GAUSSIANS = {"cpu": 30_000, "cuda": 1_000_000}
"""What a run on each kind of device can afford."""

MIN_PHOTOS_TO_DISTILL = 2
"""With one photo there is no place between photos, and no stereo."""

ROUNDS_DEFAULTS: dict[str, Any] = {
    "fixer": "default",
    "targets": "photos-between",
    "num_rounds": 5,
    "num_novel": 16,
    "novel_prob": 0.3,
    "novel_weight": 0.2,
}
DISTILLATION_DEFAULTS: dict[str, Any] = {
    "fixer": "none",
    "targets": "spread",
    "num_rounds": 0,
    "num_novel": 60,
    "novel_prob": 0.6,
    "novel_weight": 1.0,
}
"""What settings that are None stand for, by the kind of loop."""

SHORT_RUN = 10_000
"""Runs of fewer steps never reset opacities: they would not recover (on a generated scene with 6 photos and some
hundred steps, resets cost plain training more than 1 dB)."""

MAX_SEED = 2**32 - 1
"""Every source of random numbers takes seeds up to this one."""

MIN_SIZE = 16
"""Longest side of a photo, in pixels, below which nothing can be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """One run: plain training and the progressive method on one scene, and their comparison."""

    scene: str | None = None
    """Folder of a scene in COLMAP layout (images/ and sparse/0/). None: the generated demo scene."""

    fixer: str | None = None
    """Which fixer: default (the weights that come with the project), none (nothing is fixed), or a checkpoint's folder,
    file or hub name. With distillation it works on what the splats show together. None: none with distillation, else
    default."""

    loop: Literal["auto", "distillation", "rounds"] = "auto"
    """What the loop is. distillation, for few photos: several splats are trained, and one more learns from what they
    show together at many novel views. rounds: one splat, whose renders are fixed and fed back in rounds. auto:
    distillation with two to twelve training photos, unless another preset, a finished splat, num_rounds or hold_back is
    asked for."""

    stereo: Literal["auto", "on", "off"] = "auto"
    """Start from points of stereo between the training photos too: with distillation half of its splats and the one
    that learns from them, else both trainings. auto: with up to twelve training photos; on: with any number. Where
    nothing is believed, and for finished splats and other presets, trainings start as without."""

    targets: str | None = None
    """Where novel views go: photos-between (between neighboring training photos), path (along a path through them),
    orbit (a circle around the scene), spiral (in front of it), perturbed (beside the training photos), coverage (where
    the splat shows what few photos saw), test (to the poses of the held-out photos, as in the released code; the
    report says so), spread (between the training photos and around them), or a file or folder with cameras (camera
    path, transforms.json, COLMAP model). None: photos-between, spread with distillation, and test for the presets
    released and paper."""

    preset: Literal["short", "released", "paper"] = "short"
    """short: rounds spread over a run of any length. released: the released code's rounds, weights, step length,
    learning rates and targets, in 60 000 steps or scaled to max_steps. paper: a round every 1500 of 30 000 steps, or
    scaled, at the usual learning rates; what the paper does not say as in released."""

    from_checkpoint: str | None = None
    """Begin with this finished splat: a run's folder or checkpoint of this project, or gsplat's ckpt_STEP_rankR.pt
    (files of further ranks are found beside it), trained on the same scene."""

    from_ply: str | None = None
    """Begin with this finished splat in the frame of the COLMAP folder: .ply (Inria, gsplat), .spz and more; also
    splatfacto's .ply, with the dataparser_transforms.json of its run beside it."""

    from_frame: Literal["normalized", "colmap"] = "normalized"
    """Frame of a gsplat checkpoint: colmap where gsplat was told not to normalize."""

    max_steps: int | None = None
    """Optimizer steps of each of the two trainings. None: 1600 for the demo, else 3000 on a CPU, 30 000 on a GPU."""

    max_size: int | None = None
    """Longer side of the photos in pixels, larger ones are made smaller. None: 256 for the demo, else 384 on a CPU,
    1600 on a GPU."""

    max_gaussians: int | None = None
    """Upper limit of the number of Gaussians. None: 12 000 for the demo, else 30 000 on a CPU, 1 000 000 on a GPU."""

    sparse: int | None = None
    """Train on this many of the training photos only. None: 6 for the demo, else all."""

    split: str | None = None
    """Which photos are held out: every:N, names, or a JSON file. None: the scene's splits.json, else every:8."""

    regularized: bool | None = None
    """Whether few photos are kept from being learned by heart, in both trainings: dropout of Gaussians, and small ones
    of little opacity (splat-recon's regularized_for). None: with up to twelve training photos; not for finished splats,
    nor for other presets."""

    num_rounds: int | None = None
    """How often novel views are rendered and fixed (preset short); 0 is plain training. None: 5; with distillation
    there are no rounds."""

    num_novel: int | None = None
    """How many novel views per round; with targets test, one per held-out photo. None: 16, and
    with distillation 60, or as many as image_memory has room for."""

    step_distance: float = 0.25
    """How far novel views move per round, as a fraction of the scene's extent (preset short)."""

    max_turn_degrees: float | None = None
    """How far novel views turn per round at most (preset short). None: as far as their way asks for."""

    novel_prob: float | None = None
    """Probability that a step trains on a fixed view, in [0, 1]. None: 0.3, and 0.6 with distillation."""

    novel_weight: float | None = None
    """Loss weight of a fixed view beside 1 for a captured one (preset short). None: 0.2, and 1 with distillation."""

    num_references: int = 1
    """How many nearest photos a novel view is fixed with, all in one call (preset short)."""

    num_probe_views: int = 4
    """A round first fixes so many of its novel views, those farthest from any photo; where the fixer leaves even these
    as they are, the others stay as they are too (preset short). 0 fixes all."""

    background: tuple[float, float, float] | None = None
    """Color behind everything, three values in [0, 1], in all trainings, renders and exported splats. None: the mean
    color of up to twelve training photos (or the one color that a quarter of their pixels has), where they are
    regularized, and else black, or what the finished splat says."""

    fixer_offload: bool = False
    """With a GPU: keep the fixer's network in the CPU's memory, and on the GPU only while a round or the comparison is
    fixed. Slower, and leaves the GPU's memory to the splat."""

    fixer_precision: Precision = "auto"
    """What the fixer computes in; bfloat16 takes half of the memory, is faster on hardware made for it, and differs in
    the third digit. auto: bfloat16 on a GPU, float32 on a CPU."""

    base: str | None = None
    """Only for a fixer from a .pkl of the released trainer: what it was trained from, as a folder or hub name."""

    gate: GateName | None = None
    """How much of a fix is let through, in the rounds and at the end: auto keeps good renders, checkpoint takes the
    gate that the weights bring, off lets everything through. None: auto, and checkpoint for the presets released and
    paper."""

    image_memory: float = 8.0
    """Memory for images, in GiB. Half is for decoded photos: what does not fit is decoded again at each use. Half is
    for novel views and the renders that are compared: a run that needs more is refused before it begins."""

    pool_rounds: int = 1
    """How many of the newest rounds' views are learned from, older ones with less weight (preset short)."""

    agreement: float | None = None
    """Difference between fixed and rendered color, in [0, 1], at which a pixel counts half (preset short). None: a fix
    is believed however much it changes."""

    unseen_weight: float = 1.0
    """Factor of the pixels of a fixed view that show what no training photo sees, in [0, 1] (preset short). 1: guesses
    count like the rest."""

    reference_agreement: float | None = None
    """Difference in color between a fixed view and the nearest photos, reprojected by the splat's depth, in [0, 1],
    at which a pixel counts half (preset short). None: photos are not compared."""

    hold_back: float | None = None
    """Share of the training photos by which a second splat, trained without them, notices what does not help: it is
    undone, and training stops where nothing helps any more. 0: every round is trusted. None: 0.15, and 0 for the
    presets released and paper, and for finished splats, which have seen all photos."""

    hold_back_against: Literal["best", "plain"] = "best"
    """What the second splat's score is compared with. best: its best score so far; training stops where nothing helps.
    plain: a third splat that learns from the same photos without rounds; only rounds are undone, training never stops
    early, and it works from 4 training photos."""

    hold_back_min_views: int = 12
    """Fewest training photos of which some are held back to be compared with the best score; with fewer, every round is
    trusted."""

    hold_back_margin: float = 0.3
    """Loss of PSNR on those photos, in dB, from which a try is undone."""

    seed: int = 42
    """Seed of everything random."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if gsplat can use one."""

    checkpoint_every: int | None = None
    """Steps between two checkpoints; the last two are kept. None: a quarter of the run."""

    def __post_init__(self) -> None:
        if self.from_checkpoint is not None and self.from_ply is not None:
            raise ValueError("a run begins with one splat: give from_checkpoint or from_ply, not both")
        if self.targets is not None and self.targets not in TARGETS and not Path(self.targets).exists():
            raise ValueError(f"targets must be {', '.join(TARGETS)}, or a file with cameras, got {self.targets}")
        minima = {"max_steps": 1, "max_size": MIN_SIZE, "max_gaussians": 1, "sparse": 1, "checkpoint_every": 1}
        for name, least in (minima | {"num_rounds": 0, "num_novel": 1, "seed": 0, "num_references": 1}).items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 < self.image_memory < float("inf"):
            raise ValueError(f"image_memory must be positive and finite, got {self.image_memory}")
        if self.num_probe_views < 0:
            raise ValueError(f"num_probe_views must be at least 0, got {self.num_probe_views}")
        if self.background is not None and not all(0 <= value <= 1 for value in self.background):
            raise ValueError(f"background must be three values in [0, 1], got {self.background}")
        if self.seed > MAX_SEED:
            raise ValueError(f"seed must be at most {MAX_SEED}, got {self.seed}")
        if self.loop == "distillation" and (self.preset != "short" or start_config(self) is not None):
            raise ValueError(
                "loop distillation trains its splats from the photos: leave preset, from_checkpoint, from_ply"
            )
        # The nested configs know the ranges of the others.
        SteppingConfig(step_distance=self.step_distance, max_turn_degrees=self.max_turn_degrees)
        _mixture_config(self)
        PoolConfig(num_rounds=self.pool_rounds)
        _hold_back_config(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunSettings":
        """The inverse of `to_dict`.

        Raises:
            InputError: A field is unknown or out of range.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"unknown settings: {', '.join(unknown)}")
        try:
            if values.get("background") is not None:
                values = {**values, "background": tuple(values["background"])}
            settings = cls(**values)
            check_kinds(settings)
            return settings
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(str(error)) from error


def resolved(settings: RunSettings, device: Literal["cpu", "cuda"]) -> RunSettings:
    """The same settings with every None filled in for a device; `split` becomes a policy that can be named."""
    demo = settings.scene is None
    of_others = settings.preset != "short"
    finished = settings.from_checkpoint is not None or settings.from_ply is not None
    default_steps = {"short": DEFAULT_STEPS[device], "released": RELEASED_STEPS, "paper": PAPER_STEPS}[settings.preset]
    max_steps = settings.max_steps or (DEMO_STEPS if demo and not of_others else default_steps)
    asks_for_rounds = of_others or finished or settings.num_rounds is not None or settings.hold_back is not None
    hold_back = settings.hold_back
    if hold_back is None:
        hold_back = 0.0 if of_others or finished else HoldBackConfig().share
    values = settings.to_dict() | {
        "device": device,
        "max_steps": max_steps,
        "max_size": settings.max_size or (DEMO_SIZE if demo else DEFAULT_SIZE[device]),
        "max_gaussians": settings.max_gaussians or (DEMO_GAUSSIANS if demo else DEFAULT_GAUSSIANS[device]),
        "sparse": settings.sparse or (DEMO_SPARSE if demo else None),
        "split": settings.split or (DEMO_SPLIT if demo else "auto"),
        "targets": settings.targets or ("test" if of_others else None),
        "loop": "rounds" if settings.loop == "auto" and asks_for_rounds else settings.loop,
        "hold_back": hold_back,
        "gate": settings.gate or ("checkpoint" if of_others else "auto"),
        "checkpoint_every": settings.checkpoint_every or max(1, max_steps // 4),
    }
    return RunSettings(**values)


def for_photos(
    settings: RunSettings,
    num_photos: int,
    *,
    background: tuple[float, float, float] = BLACK,
    start_background: tuple[float, float, float] = BLACK,
) -> RunSettings:
    """Resolved settings with what depends on the training photos filled in.

    Args:
        settings: Resolved.
        num_photos: How many training photos there are.
        background: The color that they suggest, taken if they are few and regularized.
        start_background: The color that a finished splat stands before, taken otherwise.
    """
    loop = settings.loop
    if loop == "auto":
        loop = "distillation" if MIN_PHOTOS_TO_DISTILL <= num_photos <= FEW_PHOTOS else "rounds"
    own = settings.preset == "short" and start_config(settings) is None
    defaults = DISTILLATION_DEFAULTS if loop == "distillation" else ROUNDS_DEFAULTS
    given = {name: value for name in defaults if (value := getattr(settings, name)) is not None}
    regularized = own and num_photos <= FEW_PHOTOS if settings.regularized is None else settings.regularized
    values = {**defaults, **given, "loop": loop, "regularized": regularized}
    if settings.background is None:
        values["background"] = background if regularized and num_photos <= FEW_PHOTOS else start_background
    if loop == "distillation":
        values["hold_back"] = 0.0
    return replace(settings, **values)


def progressive_config(settings: RunSettings) -> ProgressiveConfig:
    """The method's constants for resolved settings.

    Raises:
        ValueError: The settings are not resolved.
    """
    if None in (settings.max_steps, settings.max_gaussians, settings.hold_back):
        raise ValueError("expected resolved settings, got some that are still None")
    train = _train_config(settings)
    hold_back = _hold_back_config(settings)
    if settings.preset != "short":
        config = released_config(train) if settings.preset == "released" else paper_config(train)
        return replace(config, targets=_targets(settings), hold_back=hold_back, seed=settings.seed)
    return ProgressiveConfig(
        train=train,
        rounds=EvenRounds(num_rounds=_value(settings, "num_rounds")),
        targets=_targets(settings),
        stepping=SteppingConfig(step_distance=settings.step_distance, max_turn_degrees=settings.max_turn_degrees),
        mixture=_mixture_config(settings),
        pool=PoolConfig(num_rounds=settings.pool_rounds),
        num_references=settings.num_references,
        num_probe_views=settings.num_probe_views,
        hold_back=hold_back,
        seed=settings.seed,
    )


def distillation_config(settings: RunSettings, config: ProgressiveConfig) -> DistillationConfig:
    """The constants of distillation for resolved settings, whose novel views and plain training `config` has."""
    mixture = replace(
        DistillationConfig().mixture, **{name: _value(settings, name) for name in ("novel_prob", "novel_weight")}
    )
    return DistillationConfig(
        train=config.train,
        targets=config.targets,
        mixture=mixture,
        num_references=settings.num_references,
        seed=settings.seed,
    )


def _value(settings: RunSettings, name: str) -> Any:
    """A setting, or where it is None what it stands for in rounds."""
    value = getattr(settings, name)
    return ROUNDS_DEFAULTS[name] if value is None else value


def _hold_back_config(settings: RunSettings) -> HoldBackConfig:
    return HoldBackConfig(
        share=settings.hold_back or 0,
        against=settings.hold_back_against,
        margin=settings.hold_back_margin,
        min_views=settings.hold_back_min_views,
    )


def _mixture_config(settings: RunSettings) -> MixtureConfig:
    return MixtureConfig(
        novel_prob=_value(settings, "novel_prob"),
        novel_weight=_value(settings, "novel_weight"),
        agreement=settings.agreement,
        unseen_weight=settings.unseen_weight,
        reference_agreement=settings.reference_agreement,
    )


def fixer_config(settings: RunSettings) -> FixerConfig:
    """The fixer of resolved settings."""
    return FixerConfig(
        source=_value(settings, "fixer"),
        base=settings.base,
        precision=settings.fixer_precision,
        gate=settings.gate or "auto",
        offload=settings.fixer_offload,
    )


def start_config(settings: RunSettings) -> StartConfig | None:
    """The finished splat that a run begins with; None where it begins with the scene's points."""
    if settings.from_ply is not None:
        return StartConfig(path=settings.from_ply, kind="ply")
    if settings.from_checkpoint is not None:
        return StartConfig(path=settings.from_checkpoint, kind="checkpoint", frame=settings.from_frame)
    return None


def _train_config(settings: RunSettings) -> TrainConfig:
    max_steps = settings.max_steps or 1
    strategy = AdcConfig(cap_max=settings.max_gaussians)
    if settings.preset == "released":
        train = released_train_config(max_steps, strategy, seed=settings.seed)
    else:
        if max_steps < SHORT_RUN and settings.preset == "short":
            strategy = replace(strategy, reset_every=0)
        train = TrainConfig(strategy=strategy, seed=settings.seed).scaled_to(max_steps)
    if settings.regularized:
        train = regularized_for(FEW_PHOTOS, train)
    train = replace(train, background=settings.background or BLACK)
    if start_config(settings) is None:
        return train
    # A finished splat is not to be shaken: it has its view-dependent colors, and learns slowly from there.
    return replace(train, sh_degree_every=1, learning_rates=RELEASED_LEARNING_RATES)


def _targets(settings: RunSettings) -> Targets:
    name = _value(settings, "targets")
    kind = TARGETS.get(name)
    if kind is None:
        return FileTargets(path=name)
    if kind is HeldOutTargets:
        return HeldOutTargets()
    num_views = _value(settings, "num_novel")
    if kind is CoverageTargets:
        return CoverageTargets(num_views=num_views, num_candidates=max(48, 3 * num_views))
    return kind(num_views=num_views)
