"""Sizes of the networks and of the field, and the settings of a distillation. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from output_files import check_range

EftMode = Literal["train", "eval"]
"""How the transformer runs: "train" with batch statistics and dropout, "eval" with running statistics and without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EftConfig:
    """Sizes of the epipolar feature transformer; the defaults are the published ones (16.8 million parameters)."""

    encoder_width: int = 64
    """Channels of the first stage of the ResNet18 that encodes images; the others have 2, 4 and 8 times as many."""

    encoder_tail: bool = True
    """Keep the stage and the classifier that no output depends on, as published checkpoints do."""

    hidden: int = 256
    """Width of the transformers and number of features that come out."""

    num_layers: int = 4
    """Layers of each of the three transformers."""

    num_octaves: int = 6
    """Octaves of the harmonic embedding of lines and depths."""

    num_depths: int = 20
    """Points on every ray."""

    dropout: float = 0.1
    """Dropout of the transformers' layers, in [0, 1); only in mode "train"."""

    depth_margin: float = 5.0
    """Points on rays lie up to this far before and behind the cameras' mean distance from the origin."""

    centered_rays: bool = False
    """Rays go through the centers of coarse pixels. Published: through a grid that spans the centers of the outermost
    fine pixels, which is nearly the same at 256 pixels and not at 64."""

    def __post_init__(self) -> None:
        check_range(
            self, "positive", "encoder_width", "hidden", "num_layers", "num_octaves", "num_depths", "depth_margin"
        )
        check_range(self, "in [0, 1)", "dropout")

    @property
    def encoder_features(self) -> int:
        """Channels of the feature maps: the outputs of the stem and of three stages, side by side."""
        return 8 * self.encoder_width


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """Sizes of the denoiser; the defaults are the published ones (400.7 million parameters)."""

    dim: int = 256
    """Channels of the first level."""

    dim_mults: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level, in units of ``dim``."""

    num_resnet_blocks: int = 2
    """Residual blocks with skip connections per level."""

    latent_channels: int = 4
    """Channels of the latents that are denoised."""

    cond_channels: int = 256
    """Channels of the transformer's features that condition it."""

    num_heads: int = 8
    """Heads of every attention."""

    head_dim: int = 64
    """Width of a head."""

    def __post_init__(self) -> None:
        check_range(
            self, "positive", "dim", "num_resnet_blocks", "latent_channels", "cond_channels", "num_heads", "head_dim"
        )
        if len(self.dim_mults) < 2 or min(self.dim_mults) < 1:
            raise ValueError(f"dim_mults must be at least two positive integers, got {self.dim_mults}")
        if self.dim % 8:
            raise ValueError(f"dim must be a multiple of 8, got {self.dim}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeConfig:
    """Sizes of the embedded image autoencoder, a diffusers AutoencoderKL; published weights bring their own."""

    block_channels: tuple[int, ...] = (32, 48, 64, 64)
    """Channels of each level; each but the last halves the side."""

    layers_per_block: int = 1
    """Residual layers per level."""

    latent_channels: int = 4
    """Channels of the latents."""

    norm_groups: int = 8
    """Groups of the group norms."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "layers_per_block", "latent_channels", "norm_groups")
        if any(channels % self.norm_groups for channels in self.block_channels):
            raise ValueError(f"block_channels must be multiples of norm_groups, got {self.block_channels}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldConfig:
    """Sizes of the neural field and how its rays are sampled; the defaults are the published ones."""

    bound: float = 4.0
    """Half of the side of the cube in which the field lives, in scene units."""

    min_near: float = 0.1
    """Rays start no nearer than this to their camera."""

    num_levels: int = 16
    """Levels of the grid."""

    level_channels: int = 2
    """Features per level."""

    base_resolution: int = 16
    """Cells per side of the coarsest level."""

    finest_per_bound: int = 2048
    """Cells per side of the finest level, per unit of ``bound``."""

    log2_table_size: int = 16
    """Largest table of a level, as a power of two; finer levels tile it."""

    hidden: int = 64
    """Width of the network that follows the grid."""

    num_steps: int = 64
    """Evenly spaced samples per ray."""

    num_importance: int = 64
    """Samples per ray where the first ones found density."""

    blob_density: float = 5.0
    """Density that every field starts with at the center, so that it does not start empty."""

    blob_radius: float = 0.2
    """Radius of it, in scene units."""

    max_points: int = 2_000_000
    """Points per call of the network when nothing is learned; bounds the memory of a render."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "bound", "min_near", "num_levels", "level_channels", "base_resolution")
        check_range(self, "positive", "finest_per_bound", "log2_table_size", "hidden", "num_steps", "blob_radius")
        check_range(self, "positive", "max_points")
        if self.num_importance < 0:
            raise ValueError(f"num_importance must not be negative, got {self.num_importance}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """How a field is fitted; the defaults are the published ones."""

    max_steps: int = 3000
    """Iterations; each takes two optimizer steps, one on an input view and one on a cached view."""

    diffusion_start: int = 1000
    """Iterations up to this one fit the transformer's images; later ones fit samples of the diffusion model."""

    perceptual_start: int = 1000
    """Iterations after this one also compare samples perceptually."""

    image_size: int = 256
    """Side of the images, in pixels; a multiple of 8."""

    render_size: int = 128
    """Side of the renders that are learned from, in pixels; they are upsampled to ``image_size``."""

    centered_rays: bool = False
    """Renders that are learned from have their rays through the centers of coarse pixels, and are compared with photos
    averaged over these. Published: rays span the centers of the outermost fine pixels, and photos keep every other
    pixel; at 256 pixels this hardly matters, at 64 it moves the borders by a pixel."""

    num_circle: int = 50
    """Cameras on a circle whose images are cached beside those of the scene."""

    circle_tilt: float = 0.17
    """The cameras on the circle are tilted up and down by up to this angle, in radians."""

    num_sampling_steps: int = 50
    """Largest number of steps of a diffusion sample."""

    max_time: float = 0.99
    """Samples start from noise of a time drawn between 0 and this."""

    color_weight: float = 1.0
    """Weight of the difference of colors."""

    mask_weight: float = 1.0
    """Weight of the difference between opacity and mask."""

    opacity_weight: float = 1e-3
    """Weight of the opacity itself, which keeps empty space empty."""

    perceptual_weight: float = 0.1
    """Weight of the perceptual difference to diffusion samples."""

    mask_threshold: float = 0.1
    """Pixels of the transformer's images whose mean color is above this belong to the object, in [0, 1]."""

    grid_lr: float = 5e-3
    """Learning rate of the grid."""

    network_lr: float = 5e-4
    """Learning rate of the network behind the grid."""

    lr_decay: float = 0.2
    """Both learning rates are multiplied by this every ``lr_decay_every`` iterations."""

    lr_decay_every: int = 3000
    """Iterations between two decays of the learning rates."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "max_steps", "image_size", "render_size", "num_sampling_steps")
        check_range(self, "positive", "grid_lr", "network_lr", "lr_decay_every")
        if self.image_size % 8:
            raise ValueError(f"image_size must be a multiple of 8, got {self.image_size}")
        if self.num_circle < 0:
            raise ValueError(f"num_circle must not be negative, got {self.num_circle}")
        check_range(self, "in [0, 1]", "max_time")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything that a checkpoint of ours holds: sizes of the three networks and their scale."""

    eft: EftConfig = field(default_factory=EftConfig)
    """The epipolar feature transformer."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    """The denoiser."""

    vae: VaeConfig = field(default_factory=VaeConfig)
    """The image autoencoder."""

    latent_scale: float = 0.18215
    """Latents are multiplied by this, so that their variance is about 1. Stable Diffusion's: 0.18215."""

    image_size: int = 256
    """Side of the images that the networks were trained on, in pixels."""

    eft_mode: EftMode = "train"
    """How the transformer runs by default. The published results were made in mode "train"."""

    @property
    def latent_factor(self) -> int:
        """How many pixels of an image a latent spans, along a side."""
        return 2 ** (len(self.vae.block_channels) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the latents, which is also the number of the transformer's rays per side."""
        return self.image_size // self.latent_factor


SMALL_IMAGE_SIZE = 128
"""Networks for smaller images than this get the settings of `small_distillation` and `small_field`."""


def small_distillation(image_size: int, max_steps: int = 240) -> DistillConfig:
    """A distillation of small networks that a CPU finishes in minutes.

    Most of it fits samples: the field of the transformer's images gets worse with time, and every view should be
    sampled several times, since the mean of samples is better than one.
    """
    return DistillConfig(
        max_steps=max_steps,
        diffusion_start=max_steps // 4,
        perceptual_start=max_steps // 4,
        image_size=image_size,
        render_size=image_size // 2,
        centered_rays=True,
        num_circle=20,
        num_sampling_steps=12,
        max_time=0.3,
        mask_threshold=0.05,
        mask_weight=0.1,
        grid_lr=1e-2,
        network_lr=2e-3,
        lr_decay_every=max(1, max_steps * 3 // 4),
    )


def small_field(bound: float) -> FieldConfig:
    """A field without cells that small images could not show.

    Args:
        bound: Half of the side of its cube, in scene units.
    """
    return FieldConfig(bound=bound, num_levels=6, finest_per_bound=32, num_steps=20, num_importance=12)
