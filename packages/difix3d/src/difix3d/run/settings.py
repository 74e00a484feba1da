"""What a run of the whole comparison is asked to do, JSON-like; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from difix3d.distillation_config import DistillationConfig
from difix3d.errors import InputError
from difix3d.fixers.config import ViewFixerConfig
from difix3d.loop.config import FixingConfig, MixtureConfig, RoundsConfig, SteppingConfig, ValidationConfig
from difix3d.loop.target_config import (
    AroundTargets,
    HeldOutTargets,
    OrbitTargets,
    PathTargets,
    PerturbedTargets,
    SpiralTargets,
    SpreadTargets,
)
from output_files import check_range
from splat_recon.config_values import config_of, flattened

Settings = TypeVar("Settings", bound="RunSettings")

TARGETS: dict[str, type] = {
    "photos-between": AroundTargets,
    "path": PathTargets,
    "orbit": OrbitTargets,
    "spiral": SpiralTargets,
    "perturbed": PerturbedTargets,
    "spread": SpreadTargets,
    "test": HeldOutTargets,
}
"""Names of targets."""

Quality = Literal["draft", "good", "best"]
"""How long and how large a run is."""

USUAL_TARGETS = {"rounds": "photos-between", "distillation": "spread"}
NUM_NOVEL = {"rounds": AroundTargets().num_views, "distillation": SpreadTargets().num_views}
"""Where novel views go, and how many of them, in each kind of loop."""

MAX_SEED = 2**32 - 1
"""Every source of random numbers takes seeds up to this one."""

MIN_SIZE = 16
"""Longest side of a photo, in pixels, below which nothing can be compared."""

MAY_CHANGE = frozenset({"device", "checkpoint_every", "fixer.offload", "image_memory"})
"""Settings that a resumed run may have differently."""

BY_DEVICE = ("max_steps", "max_size", "max_gaussians", "num_novel")
"""Settings whose defaults depend on the device or its memory: a resumed run keeps those that it began with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings(FixingConfig):
    """One run: plain training and the loop on one scene, and their comparison.

    The configs in it are those of the method, with their own defaults. Those of rounds are for the preset short.
    """

    scene: str | None = None
    """Folder of a scene in COLMAP layout (images/ and sparse/0/). None: the generated demo scene."""

    fixer: ViewFixerConfig = field(default_factory=ViewFixerConfig)
    """What fixes novel views."""

    loop: Literal["auto", "distillation", "rounds"] = "auto"
    """What the loop is. distillation, for few photos: several splats are trained, and one more learns from what they
    show together at many novel views. rounds: one splat, whose renders are fixed and fed back in rounds. auto:
    distillation with two to twelve training photos, unless another preset, a finished splat, a validation fraction, or
    anything about rounds, stepping or mixture is asked for."""

    stereo: Literal["auto", "on", "off"] = "auto"
    """Start from points of stereo between the training photos too: with distillation the splats that are trained
    beside the plain one, else both trainings. auto: with up to twelve training photos; on: with any number. Where
    nothing is believed, and for finished splats and other presets, trainings start as without."""

    targets: str | None = None
    """Where novel views go: photos-between (between neighboring training photos), path (along a path through them),
    orbit (a circle around the scene), spiral (in front of it), perturbed (beside the training photos), test (to the
    poses of the test photos, as in the released code; the report says so), spread (between the training photos and
    around them), or a file or folder with cameras (camera path, transforms.json, COLMAP model). None: photos-between,
    spread with distillation, and test for the presets released and paper."""

    num_novel: int | None = None
    """How many novel views per round; with targets test, one per test photo. None: 16, and with distillation 60, or
    as many as image_memory has room for."""

    preset: Literal["short", "released", "paper"] = "short"
    """short: rounds spread over a run of any length. released: the released code's rounds, weights, step length,
    learning rates and targets, in 60 000 steps or scaled to max_steps. paper: a round every 1500 of 30 000 steps, or
    scaled, at the usual learning rates; what the paper does not say as in released. With these two the gate auto is
    what the weights bring."""

    start: str | None = None
    """Begin with this finished splat, trained on the same scene: a run's folder or checkpoint of this project, gsplat's
    ckpt_STEP_rankR.pt (files of further ranks are found beside it), or a splat file (.ply, .spz and more) in the frame
    of the COLMAP folder; also splatfacto's .ply, with the dataparser_transforms.json of its run beside it."""

    start_frame: Literal["normalized", "colmap"] = "normalized"
    """Frame of a gsplat checkpoint: colmap where gsplat was told not to normalize."""

    quality: Quality | None = None
    """How long and how large, where max_steps, max_size and max_gaussians do not say: draft (minutes), good, best
    (hours). What each takes on this machine is said before a run begins. None: good, and what suits the demo."""

    max_steps: int | None = None
    """Optimizer steps of each training. None: by quality; 1600 for the demo, good is 3000 on a CPU, 30 000
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

    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    """When novel views are rendered and fixed."""

    stepping: SteppingConfig = field(default_factory=SteppingConfig)
    """How far they go per round."""

    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """How much they count."""

    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What notices whether they help."""

    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """What distillation does instead."""

    background: tuple[float, float, float] | None = None
    """Color behind everything, three values in [0, 1], in all trainings, renders and exported splats. None: the mean
    color of up to twelve training photos (or the one color that a quarter of their pixels has), where they are
    regularized, and else black, or what the finished splat says."""

    image_memory: float = 8.0
    """Memory for images, in GiB. Half is for decoded photos: what does not fit is decoded again at each use. Half is
    for novel views and the renders that are compared: a run that needs more is refused before it begins."""

    seed: int = 42
    """Seed of everything random."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if gsplat can use one."""

    checkpoint_every: int | None = None
    """Steps between two checkpoints; the last two are kept. None: a quarter of the run."""

    def __post_init__(self) -> None:
        FixingConfig.__post_init__(self)
        if self.targets is not None and self.targets not in TARGETS and not Path(self.targets).exists():
            raise ValueError(f"targets must be {', '.join(TARGETS)}, or a file with cameras, got {self.targets}")
        check_range(self, "at least 1", "max_steps", "max_gaussians", "sparse", "checkpoint_every", "num_novel")
        check_range(self, f"at least {MIN_SIZE}", "max_size")
        check_range(self, "at least 0", "seed")
        check_range(self, "positive and finite", "image_memory")
        if self.background is not None and not all(0 <= value <= 1 for value in self.background):
            raise ValueError(f"background must be three values in [0, 1], got {self.background}")
        if self.seed > MAX_SEED:
            raise ValueError(f"seed must be at most {MAX_SEED}, got {self.seed}")
        if self.loop == "distillation" and (self.preset != "short" or self.start is not None or self.asks_for_rounds):
            raise ValueError(
                "loop distillation trains its splats from the photos and has no rounds: leave preset, start, rounds, "
                "stepping, mixture and validation (it has a distillation.mixture of its own)"
            )
        if self.preset != "short" and self._asks_of_preset:
            raise ValueError(
                f"preset {self.preset} has rounds of its own: leave rounds, stepping, mixture, num_references and "
                "fix_batch_size"
            )
        if self.strategy == "mcmc" and self.preset == "released":
            raise ValueError("the released code has its own density control: leave strategy, or take another preset")

    @property
    def asks_for_rounds(self) -> bool:
        """Whether anything is asked for that only rounds have."""
        asked = (self.rounds, self.stepping, self.mixture)
        return asked != (RoundsConfig(), SteppingConfig(), MixtureConfig()) or bool(self.validation.fraction)

    @property
    def _asks_of_preset(self) -> bool:
        """Whether anything is asked for that presets have of their own."""
        fixing = FixingConfig(num_references=self.num_references, fix_batch_size=self.fix_batch_size)
        asked = (self.rounds, self.stepping, self.mixture, fixing)
        return asked != (RoundsConfig(), SteppingConfig(), MixtureConfig(), FixingConfig())

    @classmethod
    def of(cls: type[Settings], settings: RunSettings) -> Settings:
        """The same settings as this class has them, of itself or of one that adds nothing but how flags are named."""
        return cls(**{each.name: getattr(settings, each.name) for each in fields(RunSettings)})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; configs are dictionaries in it."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """The same side by side, with names such as `mixture.novel_prob`."""
        return flattened(self.to_dict())

    def changed(self, name: str, value: Any) -> RunSettings:
        """The same but for one value, by its name in `flat`."""
        outer, _, inner = name.rpartition(".")
        return replace(self, **({outer: replace(getattr(self, outer), **{inner: value})} if outer else {name: value}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSettings:
        """The inverse of `to_dict`; what is not there has its default.

        Raises:
            InputError: A field is unknown or out of range.
        """
        try:
            return config_of(cls, values)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(str(error)) from error
