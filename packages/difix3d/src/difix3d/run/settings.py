"""What a run of the whole comparison is asked to do, flat and JSON-like; no torch here."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from difix3d.errors import InputError
from difix3d.loop.config import MixtureConfig, SteppingConfig, ValidationConfig
from difix3d.loop.target_config import (
    AroundTargets,
    CoverageTargets,
    HeldOutTargets,
    OrbitTargets,
    PathTargets,
    PerturbedTargets,
    SpiralTargets,
    SpreadTargets,
)
from difix3d.run.start_config import StartConfig
from difix_model.gate.config import GateName
from difix_model.opening import FixerConfig, Precision
from splat_recon.config_values import check_kinds

TARGETS: dict[str, type] = {
    "photos-between": AroundTargets,
    "path": PathTargets,
    "orbit": OrbitTargets,
    "spiral": SpiralTargets,
    "perturbed": PerturbedTargets,
    "coverage": CoverageTargets,
    "spread": SpreadTargets,
    "test": HeldOutTargets,
}
"""Names of targets."""

Quality = Literal["draft", "good", "best"]
"""How long and how large a run is."""

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

MAX_SEED = 2**32 - 1
"""Every source of random numbers takes seeds up to this one."""

MIN_SIZE = 16
"""Longest side of a photo, in pixels, below which nothing can be compared."""


MAY_CHANGE = frozenset({"device", "checkpoint_every", "fixer_offload", "image_memory"})
"""Settings that a resumed run may have differently."""

BY_DEVICE = ("max_steps", "max_size", "max_gaussians", "num_novel")
"""Settings whose defaults depend on the device or its memory: a resumed run keeps those that it began with."""


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
    distillation with two to twelve training photos, unless another preset, a finished splat, num_rounds or
    validation_fraction is asked for."""

    stereo: Literal["auto", "on", "off"] = "auto"
    """Start from points of stereo between the training photos too: with distillation the splats that are trained
    beside the plain one, else both trainings. auto: with up to twelve training photos; on: with any number. Where
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

    quality: Quality | None = None
    """How long and how large, where max_steps, max_size and max_gaussians do not say: draft (minutes), good, best
    (hours). What each takes on this machine is said before a run begins. None: good, and what suits the demo."""

    max_steps: int | None = None
    """Optimizer steps of each of the two trainings. None: by quality; 1600 for the demo, good is 3000 on a CPU, 30 000
    on a GPU."""

    max_size: int | None = None
    """Longer side of the photos in pixels, larger ones are made smaller. None: by quality; 256 for the demo, good is
    384 on a CPU, 1600 on a GPU."""

    strategy: Literal["default", "mcmc"] = "default"
    """Density control of both trainings. default: gsplat's duplicating, splitting and pruning. mcmc: Markov chain Monte
    Carlo up to max_gaussians (preset short or paper)."""

    max_gaussians: int | None = None
    """Upper limit of the number of Gaussians. None: by quality; 12 000 for the demo, good is 30 000 on a CPU, 1 000 000
    on a GPU."""

    sparse: int | None = None
    """Train on this many of the training photos only. None: 6 for the demo, else all."""

    split: str | None = None
    """Which photos are held out: every:N, names, a JSON file, or none, to train on all of them. None: the scene's
    splits.json, else every:8."""

    regularized: bool | None = None
    """Whether overfitting to few photos is held down, in both trainings: dropout of Gaussians, and small ones
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

    unseen_weight: float = 1.0
    """Factor of the pixels of a fixed view whose surface no training photo sees, in [0, 1] (preset short). 1: guesses
    count like the rest."""

    photo_tolerance: float | None = None
    """Difference in color between a fixed view and the nearest photos, reprojected by the splat's depth, in [0, 1],
    at which a pixel counts half (preset short). None: photos are not compared."""

    validation_fraction: float | None = None
    """Fraction of the training photos that a second splat is trained without: what lowers its score on them is undone,
    and training stops where nothing helps any more. 0: every round is kept. None: 0.15, and 0 for the presets released
    and paper, and for finished splats, which have seen all photos."""

    validation_min_views: int = 12
    """Fewest training photos of which some are held back for that; with fewer, every round is kept."""

    max_drop_db: float = 0.3
    """Loss of PSNR on those photos, in dB below the best, from which what was done is undone."""

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
        if self.loop == "distillation" and (self.preset != "short" or self.start is not None):
            raise ValueError(
                "loop distillation trains its splats from the photos: leave preset, from_checkpoint, from_ply"
            )
        if self.strategy == "mcmc" and self.preset == "released":
            raise ValueError("the released code has its own density control: leave strategy, or take another preset")
        # The nested configs know the ranges of the others.
        _ = self.stepping, self.mixture, self.validation

    def or_default(self, name: str) -> Any:
        """A setting, or where it is None what it stands for in rounds."""
        value = getattr(self, name)
        return ROUNDS_DEFAULTS[name] if value is None else value

    @property
    def stepping(self) -> SteppingConfig:
        """How far novel views move per round."""
        return SteppingConfig(step_distance=self.step_distance, max_turn_degrees=self.max_turn_degrees)

    @property
    def mixture(self) -> MixtureConfig:
        """How much fixed views count."""
        return MixtureConfig(
            novel_prob=self.or_default("novel_prob"),
            novel_weight=self.or_default("novel_weight"),
            unseen_weight=self.unseen_weight,
            photo_tolerance=self.photo_tolerance,
        )

    @property
    def validation(self) -> ValidationConfig:
        """What notices whether they help."""
        return ValidationConfig(
            fraction=self.validation_fraction or 0,
            min_views=self.validation_min_views,
            max_drop_db=self.max_drop_db,
        )

    @property
    def fixer_config(self) -> FixerConfig:
        """The fixer."""
        return FixerConfig(
            source=self.or_default("fixer"),
            base=self.base,
            precision=self.fixer_precision,
            gate=self.gate or "auto",
            offload=self.fixer_offload,
        )

    @property
    def start(self) -> StartConfig | None:
        """The finished splat that a run begins with; None where it begins with the scene's points."""
        if self.from_ply is not None:
            return StartConfig(path=self.from_ply, kind="ply")
        if self.from_checkpoint is not None:
            return StartConfig(path=self.from_checkpoint, kind="checkpoint", frame=self.from_frame)
        return None

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
