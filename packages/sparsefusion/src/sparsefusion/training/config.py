"""Settings of the trainings; imports no torch. Needs the extra `train`."""

from __future__ import annotations

from dataclasses import dataclass, field

from output_files import check_range
from train_runs import OptimizerConfig


def published_optimizer() -> OptimizerConfig:
    """Adam whose learning rate halves every 50 000 steps, without decay of weights and without clipping."""
    return OptimizerConfig(
        algorithm="adam",
        learning_rate=5e-5,
        schedule="step",
        decay_every=50_000,
        decay_factor=0.5,
        weight_decay=0.0,
        max_grad_norm=0.0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedObjectsConfig:
    """Which generated objects are trained on, and from where they are seen."""

    image_size: int = 64
    """Side of the images, in pixels."""
    num_objects: int = 1000
    """Number of objects."""
    num_views: int = 12
    """Views of each, from random places around."""
    first_seed: int = 0
    """Seed of the first object; the others follow."""

    def __post_init__(self) -> None:
        if min(self.image_size, self.num_objects) < 1 or self.num_views < 2 or self.first_seed < 0:
            raise ValueError(
                "image_size and num_objects must be at least 1, num_views at least 2, first_seed 0 or more"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class JointTrainConfig:
    """How transformer and diffusion model are trained together. The defaults are the published ones."""

    eft: OptimizerConfig = field(default_factory=published_optimizer)
    """Optimizer of the transformer."""
    denoiser: OptimizerConfig = field(default_factory=published_optimizer)
    """Optimizer of the diffusion model."""
    min_contexts: int = 2
    """Fewest photos that the transformer is given."""
    max_contexts: int = 5
    """Most photos that it is given; the number is drawn."""
    diffusion_batch: int = 12
    """Times and noises per step, all for the same latent; 0 trains the transformer alone."""
    drop_condition_prob: float = 0.1
    """Probability that a sample of the diffusion model goes without its condition, in [0, 1]."""
    color_weight: float = 1.0
    """Weight of the difference of the transformer's colors. Published: 1."""
    diffusion_weight: float = 1.0
    """Weight of the diffusion loss. Published: 1."""
    num_rays: int = 0
    """Rays of the query view per step, half of them on the object; 0 takes all. With samples of the diffusion model all
    are needed. Published: all."""
    distinct_query: bool = False
    """The query view is none of the photos. Published: it may be one of them."""
    seed: int = 0
    """Of the order of the objects."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_contexts <= self.max_contexts:
            raise ValueError("min_contexts must be at least 1 and at most max_contexts")
        if self.diffusion_batch < 0 or self.num_rays < 0:
            raise ValueError("diffusion_batch and num_rays must be 0 or more")
        if self.diffusion_batch and self.num_rays:
            raise ValueError("the diffusion model needs the features of all rays: num_rays must be 0")
        check_range(self, "in [0, 1]", "drop_condition_prob")


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeTrainConfig:
    """How a small image autoencoder is trained; the published system takes Stable Diffusion's as it is."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=50)
    )
    """Optimizer and schedule."""
    batch_size: int = 8
    """Images per step."""
    absolute_weight: float = 1.0
    """Weight of the mean absolute error."""
    squared_weight: float = 4.0
    """Weight of the mean squared error."""
    latent_noise: float = 0.05
    """Standard deviation of the noise that latents get before they are decoded, so that near ones decode alike."""
    color_weight: float = 1.0
    """Weight of the difference between the first three channels of the latents and the mean colors of the pixels that
    they span, in [-1, 1]: a small autoencoder learns many times faster with it, and such latents are easy to predict
    from the transformer's colors."""
    decoder_only: bool = False
    """Train the decoder alone: latents stay what a diffusion model was trained on."""
    seed: int = 0
    """Of the order of the objects."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "batch_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserTrainConfig:
    """How the diffusion model is trained on a frozen transformer's answers.

    The published system trains both together, on one view per step.
    """

    optimizer: OptimizerConfig = field(default_factory=published_optimizer)
    """Optimizer and schedule."""
    batch_size: int = 16
    """Views per step, each with a time and a noise of its own."""
    drop_condition_prob: float = 0.1
    """Probability that a view goes without its condition, in [0, 1]."""
    seed: int = 0
    """Of the order of the views."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "batch_size")
        check_range(self, "in [0, 1]", "drop_condition_prob")
