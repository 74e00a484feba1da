"""Settings of the trainings; imports no torch. Needs the extra `train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diffsplat.config import ElevEstConfig, GSReconConfig
from output_files import check_range
from synthetic_objects import ObjectConfig
from train_runs import OptimizerConfig

Precision = Literal["float32", "bfloat16"]
"""What a network computes in while it is trained."""

Prediction = Literal["epsilon", "v_prediction", "flow"]
"""What a denoiser predicts: the noise, the velocity of the diffusion, or noise minus clean latents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedObjectsConfig:
    """Which generated objects are trained on."""

    size: int = 64
    """Side of the views in pixels."""
    num_objects: int = 1024
    """Number of objects; their seeds are 0, 1, ... and an epoch shows each once."""
    num_extra: int = 4
    """Views of each besides the four input views."""
    two_parts_prob: float = 0.5
    """Probability of an object with two parts, in [0, 1]."""
    largest_yaw_deg: float = 45.0
    """Parts are turned about their axis by up to this many degrees."""
    materials: tuple[str, ...] = ("matte", "shiny", "metal", "striped", "checkered")
    """Materials to draw from."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Pairs of a color and a shape that are never drawn."""

    def __post_init__(self) -> None:
        if min(self.size, self.num_objects) < 1 or self.num_extra < 0:
            raise ValueError("size and num_objects must be at least 1, num_extra at least 0")

    @property
    def objects(self) -> ObjectConfig:
        """What is drawn."""
        return ObjectConfig(
            two_parts_prob=self.two_parts_prob, largest_yaw_deg=self.largest_yaw_deg, materials=self.materials,
            left_out=self.left_out,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class GSReconMapConfig:
    """How GSRecon begins on objects whose depth is known. Not in the original, which begins with renders."""

    network: GSReconConfig = field(default_factory=GSReconConfig)
    """Size of the network."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=3e-3, beta2=0.95, weight_decay=0.01, schedule="cosine", warmup_steps=30
        )
    )
    """Optimizer and schedule."""
    batch_size: int = 16
    """Objects per step."""
    num_tokens: int = 128
    """Patches per object and step; the others are left out, also of attention."""
    empty_sampling_weight: float = 0.08
    """How likely a patch without the object is drawn, against one with it; in (0, 1]."""
    seed: int = 0
    """Of the order of the objects and of the first weights."""

    def __post_init__(self) -> None:
        if min(self.batch_size, self.num_tokens) < 1 or not 0 < self.empty_sampling_weight <= 1:
            raise ValueError("batch_size and num_tokens must be at least 1, empty_sampling_weight in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class GSReconTrainConfig:
    """How GSRecon is trained. The defaults are the released ones."""

    network: GSReconConfig = field(default_factory=GSReconConfig)
    """Size of the network."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=4e-4, beta2=0.95, weight_decay=0.05, schedule="cosine", warmup_steps=1000
        )
    )
    """Optimizer and schedule."""
    batch_size: int = 8
    """Objects per step."""
    render_weight: float = 1.0
    """Weight of the renders' squared errors of color and opacity."""
    lpips_weight: float = 1.0
    """Weight of LPIPS, where it is available."""
    map_weight: float = 0.0
    """Weight of the error against depth, color and mask of the input views. Released: 0."""
    render_every: int = 1
    """Renders are compared every this many steps. Released: 1."""
    seed: int = 0
    """Of the order of the objects and of the first weights."""

    def __post_init__(self) -> None:
        if min(self.batch_size, self.render_every) < 1:
            raise ValueError("batch_size and render_every must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class GSVAETrainConfig:
    """How GSVAE is trained. The defaults are the released ones."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=4e-4, beta2=0.95, weight_decay=0.05, schedule="cosine", warmup_steps=1000
        )
    )
    """Optimizer and schedule."""
    batch_size: int = 2
    """Objects per step."""
    grid_weight: float = 1.0
    """Weight of the squared error of the grids."""
    color_weight: float = 1.0
    """Weight of each of the three colors among the twelve channels of that error. Released: 1."""
    rotation_weight: float = 1.0
    """Weight of each of the rotation's four numbers among them. Released: 1."""
    depth_weight: float = 1.0
    """Weight of the depth among them. Released: 1."""
    empty_weight: float = 1.0
    """Weight of transparent Gaussians in that error, against the others. Released: 1; where most of a grid is empty, a
    small network otherwise learns the emptiness first and colors last."""
    render_weight: float = 1.0
    """Weight of the renders' squared errors of color and opacity."""
    lpips_weight: float = 1.0
    """Weight of LPIPS, where it is available."""
    kl_weight: float = 0.0
    """Weight of the divergence per latent number. Released: 0, it is only measured."""
    anchor_weight: float = 0.0
    """Weight of how far the first eight latents are from the mean color, rotation and depth of what is opaque in their
    square. Not in the original; without it a small network from nothing learns one color, or how disks are turned, late
    or never."""
    render_every: int = 1
    """Renders are compared every this many steps. Released: 1."""
    precision: Precision = "float32"
    """What the network computes in; its weights, errors and renders stay in float32. Released: float16."""
    tiny_decoder: bool = False
    """Train the tiny decoder only, with the rest frozen."""
    seed: int = 0
    """Of the order of the objects and of the first weights."""

    def __post_init__(self) -> None:
        if min(self.batch_size, self.render_every) < 1:
            raise ValueError("batch_size and render_every must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserTrainConfig:
    """How a denoiser is trained. The defaults are the released ones, but for the batch size.

    The released averages have decay 0.9999 and its power warm-up; those are the loop's settings.
    """

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=1e-4, beta2=0.999, weight_decay=0.01, schedule="constant", warmup_steps=1000
        )
    )
    """Optimizer and schedule."""
    batch_size: int = 8
    """Objects per step."""
    prediction: Prediction = "epsilon"
    """What the network predicts. Released: epsilon with a text, v_prediction with an image, flow for Stable Diffusion
    3.5."""
    dropout: float = 0.05
    """Objects that lose their prompt only, both conditions, and their image only: so many each, in [0, 1/3]."""
    without_image: float = 0.0
    """Objects that lose their image besides, so that one network also serves prompts alone; in [0, 1]. Released: 0."""
    render_weight: float = 0.0
    """Weight of the renders of the denoised latents, by the tiny decoder. Released: 0, then 1 in its second stage."""
    min_snr: float | None = None
    """Largest weight of the render loss by signal-to-noise ratio. Released: 1 for PixArt-Sigma, none otherwise."""
    seed: int = 0
    """Of the order of the objects."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "batch_size")
        if not 0 <= self.dropout <= 1 / 3:
            raise ValueError(f"dropout must be in [0, 1/3], got {self.dropout}")
        check_range(self, "in [0, 1]", "without_image")


@dataclass(frozen=True, kw_only=True, slots=True)
class ElevEstTrainConfig:
    """How ElevEst is trained. The defaults are the released ones."""

    network: ElevEstConfig = field(default_factory=ElevEstConfig)
    """Size of the network."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=1e-4, beta2=0.95, weight_decay=0.05, schedule="cosine", warmup_steps=1000
        )
    )
    """Optimizer and schedule of the heads."""
    backbone_lr_scale: float = 0.1
    """Learning rate of the backbone, as a share of the heads'; above 0."""
    batch_size: int = 16
    """Objects per step, of each one view."""
    seed: int = 0
    """Of the order of the objects and of the first weights."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not self.backbone_lr_scale > 0:
            raise ValueError("batch_size must be at least 1 and backbone_lr_scale above 0")
