"""Training configuration. Imports no torch, so command lines can read it at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from output_files import check_range
from splat_recon.config_values import check_kinds
from splat_recon.per_photo.configs import BilateralGridConfig, DepthConfig, ExposureConfig, PoseConfig, check_finite

RELEASED_STEPS = 30_000
"""Length of the schedule that the default intervals are written for (gsplat's)."""

MIN_REFINE_EVERY = 100
"""Shorter runs do not refine more often than this: the gradient averages need that many views to mean anything."""

MIN_MCMC_REFINE_EVERY = 25
"""The same for MCMC, whose rounds need no averages but opacities that had time to follow."""

MIN_RESET_EVERY = 3000
"""Shorter runs do not reset opacities more often than this: recovering takes a fixed number of steps, and what grows
in the meantime is fog in front of the cameras. So runs of up to 6000 steps never reset (measured: +1.1 dB on test
photos of a scene with 6 training views)."""


FEW_PHOTOS = 12
"""Up to so many training photos `regularized_for` keeps them from being overfitted."""

MIN_GAUSSIANS = 4
"""With fewer there is no spacing to size Gaussians by."""


def _scaled(steps: int, factor: float, at_least: int = 1) -> int:
    return max(at_least, round(steps * factor))


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """Adam's learning rate per parameter group. Defaults: gsplat's."""

    means: float = 1.6e-4
    """Centers, as a fraction of the scene's extent per step; decays to `means_final_ratio` of it."""

    means_final_ratio: float = 0.01
    """Rate of the centers at `max_steps`, relative to the start; the decay is exponential."""

    scales: float = 5e-3
    """Log scales."""

    quats: float = 1e-3
    """Quaternions."""

    opacities: float = 5e-2
    """Logit opacities."""

    sh0: float = 2.5e-3
    """Base color."""

    sh_rest: float = 2.5e-3 / 20
    """View-dependent color."""

    def __post_init__(self) -> None:
        check_finite(self, "zero or more", "means", "scales", "quats", "opacities", "sh0", "sh_rest")
        check_finite(self, "positive", "means_final_ratio")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdcConfig:
    """Adaptive density control: duplicate, split, prune, reset opacities. Defaults: gsplat's DefaultStrategy."""

    kind: Literal["adc"] = "adc"
    """Name of the strategy in a saved config."""

    grow_grad2d: float = 2e-4
    """Gaussians whose mean image gradient (in units of half an image) exceeds this grow."""

    grow_scale3d: float = 0.01
    """Growing Gaussians up to this size (fraction of the extent) are duplicated, larger ones split."""

    prune_opacity: float = 0.005
    """Gaussians below this opacity are removed, in [0, 1]."""

    prune_scale3d: float = 0.1
    """Gaussians above this size (fraction of the extent) are removed once `reset_every` steps have passed."""

    refine_start: int = 500
    """First step of density control."""

    refine_stop: int = 15_000
    """Density control ends at this step."""

    refine_every: int = 100
    """Steps between two rounds of density control."""

    reset_every: int = 3000
    """Steps between two opacity resets (to twice `prune_opacity`); 0 never resets."""

    revised_opacity: bool = False
    """Halves of a split share the opacity so that the sum stays (arXiv:2404.06109)."""

    absgrad: bool = False
    """Decide by the sums of each pixel's absolute gradients (arXiv:2404.10484), which do not cancel out inside large
    Gaussians; they are larger, so `grow_grad2d` must be too (`absgrad_config`)."""

    cap_max: int | None = 1_000_000
    """Never more Gaussians than this; those with the highest gradients grow first. None: no limit."""

    def __post_init__(self) -> None:
        check_finite(self, "positive", "grow_grad2d", "grow_scale3d", "prune_scale3d", "refine_every")
        check_finite(self, "zero or more", "refine_start", "refine_stop", "reset_every")
        check_range(self, "in [0, 1]", "prune_opacity")
        if self.reset_every and not 0 < self.prune_opacity < 0.5:
            raise ValueError(
                f"prune_opacity must be in (0, 0.5) where opacities are reset to twice of it, got {self.prune_opacity}"
            )
        if self.cap_max is not None:
            check_range(self, f"at least {MIN_GAUSSIANS}", "cap_max")

    def scaled(self, factor: float) -> AdcConfig:
        """The same schedule in `factor` times as many steps."""
        return dataclasses.replace(
            self,
            refine_start=_scaled(self.refine_start, factor),
            refine_stop=_scaled(self.refine_stop, factor),
            refine_every=_scaled(self.refine_every, factor, min(MIN_REFINE_EVERY, self.refine_every)),
            reset_every=_scaled(self.reset_every, factor, min(MIN_RESET_EVERY, self.reset_every)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class McmcConfig:
    """Density control as Markov chain Monte Carlo (arXiv:2404.09591). Defaults: gsplat's MCMCStrategy."""

    kind: Literal["mcmc"] = "mcmc"
    """Name of the strategy in a saved config."""

    cap_max: int = 1_000_000
    """The number of Gaussians grows up to this and stays there."""

    growth: float = 0.05
    """Fraction of new Gaussians per round of density control."""

    noise_lr: float = 5e5
    """Size of the exploration noise, relative to the learning rate of the centers."""

    min_opacity: float = 0.005
    """Gaussians at or below this opacity are dead and move to living ones, in [0, 1]."""

    refine_start: int = 500
    """First step of density control."""

    refine_stop: int = 25_000
    """Density control ends at this step; the noise goes on."""

    refine_every: int = 100
    """Steps between two rounds of density control."""

    def __post_init__(self) -> None:
        check_finite(self, "positive", "refine_every")
        check_range(self, f"at least {MIN_GAUSSIANS}", "cap_max")
        check_finite(self, "zero or more", "growth", "noise_lr", "refine_start", "refine_stop")
        check_range(self, "in [0, 1]", "min_opacity")

    def scaled(self, factor: float) -> McmcConfig:
        """The same schedule in `factor` times as many steps: fewer rounds grow by more each, at most by doubling."""
        refine_every = _scaled(self.refine_every, factor, min(MIN_MCMC_REFINE_EVERY, self.refine_every))
        rounds_in_one = refine_every / (self.refine_every * factor)
        growth = self.growth if rounds_in_one == 1 else (1 + self.growth) ** rounds_in_one - 1
        return dataclasses.replace(
            self,
            refine_start=_scaled(self.refine_start, factor),
            refine_stop=_scaled(self.refine_stop, factor),
            refine_every=refine_every,
            growth=min(growth, max(1.0, self.growth)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How Gaussians are trained. Defaults: gsplat's 30,000-step run; `scaled_to` shortens it."""

    max_steps: int = RELEASED_STEPS
    """Steps of the whole run; the learning rate of the centers decays over them."""

    sh_degree: int = 3
    """Highest degree of the view-dependent color, 0 to 3."""

    sh_degree_every: int = 1000
    """Steps between two increases of the degree in use, which starts at 0."""

    init_opacity: float = 0.1
    """Opacity of the first Gaussians, in (0, 1)."""

    init_scale: float = 1.0
    """Size of the first Gaussians, relative to the distance to their neighbors."""

    learning_rates: LearningRates = field(default_factory=LearningRates)
    """Adam's learning rates."""

    strategy: AdcConfig | McmcConfig = field(default_factory=AdcConfig)
    """Density control."""

    ssim_weight: float = 0.2
    """Weight of 1 - SSIM in the loss, in [0, 1]; L1 has the rest."""

    opacity_reg: float = 0.0
    """Weight of the mean opacity in the loss."""

    scale_reg: float = 0.0
    """Weight of the mean scale (scene units) in the loss."""

    dropout: float = 0.0
    """Share of the Gaussians, in [0, 1), that the last step's render leaves out at random, and the others are as much
    more opaque; it grows from 0 in proportion to the steps. For few photos (see `regularized_for`)."""

    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """RGB behind the scene, in [0, 1]."""

    random_background: bool = False
    """A new random background per training step, which keeps surfaces opaque; photos with full coverage only."""

    antialiased: bool = False
    """Opacity compensation for small Gaussians, as in Mip-Splatting."""

    batch_size: int = 1
    """Photos per step. Adam's rates are multiplied by its square root, and the moments decay as if the photos had come
    one by one (gsplat's rule)."""

    pose: PoseConfig | None = None
    """Correct the poses of the training photos; None trusts them."""

    appearance: ExposureConfig | BilateralGridConfig | None = None
    """Let the photos differ in exposure or tone; None trusts their colors."""

    depth: DepthConfig | None = None
    """Learn from the depths of structure-from-motion points; None does not."""

    packed: bool = False
    """CUDA only: gsplat keeps visible Gaussians only between its kernels, slower and smaller."""

    sparse_grad: bool = False
    """CUDA only, with `packed`: gradients and Adam for the visible Gaussians only, through torch's SparseAdam."""

    visible_adam: bool = False
    """CUDA only: gsplat's SelectiveAdam, which updates the visible Gaussians only."""

    near: float = 0.01
    """Nearest depth that is rendered, in scene units."""

    render_near: float | None = None
    """The same for every render but those of training steps, which must explain all that a photo shows. For few photos
    (`few_photos.near_plane`): floaters that no photo looks through would hide other views. None: as `near`."""

    log_every: int = 50
    """Steps between two records of the history."""

    seed: int = 42
    """Seed of all generators."""

    def __post_init__(self) -> None:
        check_finite(self, "positive", "max_steps", "sh_degree_every", "init_scale", "near", "log_every")
        check_finite(self, "positive", "render_near", "batch_size")
        check_finite(self, "zero or more", "opacity_reg", "scale_reg", "seed")
        check_range(self, "in [0, 1]", "ssim_weight", "dropout")
        if self.dropout == 1:
            raise ValueError("dropout must be below 1: something has to be rendered")
        if self.sh_degree not in range(4):
            raise ValueError(f"sh_degree must be 0, 1, 2 or 3, got {self.sh_degree}")
        check_range(self, "in (0, 1)", "init_opacity")
        if self.sparse_grad and (not self.packed or self.visible_adam):
            raise ValueError("sparse_grad needs packed, and does not go with visible_adam")
        if self.sparse_grad and self.pose is not None:
            raise ValueError(
                "sparse_grad does not go with pose: a photo's pose learns from the gradients of all Gaussians"
            )
        if self.packed and isinstance(self.strategy, AdcConfig) and self.strategy.absgrad:
            raise ValueError("packed does not go with absgrad")
        if len(self.background) != 3 or not all(0 <= value <= 1 for value in self.background):
            raise ValueError(f"background must be three numbers in [0, 1], got {self.background}")

    @property
    def nearest_rendered(self) -> float:
        """Nearest depth of renders outside training steps, in scene units."""
        return self.near if self.render_near is None else self.render_near

    def scaled_to(self, max_steps: int) -> TrainConfig:
        """The same schedule squeezed into (or stretched over) `max_steps` steps.

        Start, stop and interval of density control, opacity resets and SH degrees keep their share of the run.
        Density control stays at least `MIN_REFINE_EVERY` and opacity resets `MIN_RESET_EVERY` steps apart.
        """
        factor = max_steps / self.max_steps
        return dataclasses.replace(
            self,
            max_steps=max_steps,
            sh_degree_every=_scaled(self.sh_degree_every, factor),
            strategy=self.strategy.scaled(factor),
            pose=None if self.pose is None else self.pose.scaled(factor),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`. Raises ValueError on unknown fields or values out of range."""
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown training settings: {', '.join(unknown)}")
        fields = dict(values)
        try:
            for name, kinds in _NESTED.items():
                if fields.get(name) is not None:
                    kind = fields[name].get("kind", "")
                    fields[name] = kinds[kind](**fields[name])
            if "background" in fields:
                fields["background"] = tuple(fields["background"])
            config = cls(**fields)
            check_kinds(config)
            return config
        except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"unreadable training settings: {error}") from error


_NESTED: dict[str, dict[str, type]] = {
    "learning_rates": {"": LearningRates},
    "strategy": {"adc": AdcConfig, "mcmc": McmcConfig},
    "pose": {"": PoseConfig},
    "appearance": {"exposure": ExposureConfig, "bilateral": BilateralGridConfig},
    "depth": {"": DepthConfig},
}
"""Fields of `TrainConfig` that are configs themselves, by their `kind`."""


def regularized_for(num_photos: int, config: TrainConfig) -> TrainConfig:
    """A config with what suits so many training photos; what it regularizes already stays as it is.

    From six photos of five real scenes, over three seeds, the three terms together gained 0.3 dB and 0.025 SSIM on
    test photos, and lost on none of the scenes more than the seeds differ; dropout alone gained nothing, opacity
    and size alone little (docs/benchmarks.md; the numbers were chosen on these scenes).
    """
    if num_photos > FEW_PHOTOS:
        return config
    return dataclasses.replace(
        config,
        dropout=config.dropout or 0.1,
        opacity_reg=config.opacity_reg or 0.01,
        scale_reg=config.scale_reg or 0.01,
    )


def antialiased_config() -> TrainConfig:
    """The antialiased preset: the default with Mip-Splatting's opacity compensation."""
    return TrainConfig(antialiased=True)


def absgrad_config() -> TrainConfig:
    """The absgrad preset: growth where the absolute gradient exceeds 8e-4, the threshold that gsplat advises."""
    return TrainConfig(strategy=AdcConfig(absgrad=True, grow_grad2d=8e-4))


def mcmc_config(cap_max: int = 1_000_000) -> TrainConfig:
    """The MCMC preset: gsplat's, with its regularization and initialization."""
    return TrainConfig(
        strategy=McmcConfig(cap_max=cap_max), init_opacity=0.5, init_scale=0.1, opacity_reg=0.01, scale_reg=0.01
    )
