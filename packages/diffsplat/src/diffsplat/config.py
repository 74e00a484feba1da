"""Settings of the networks and of generation; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffsplat.errors import InputError

Backbone = Literal["sd15", "pas", "sd35m"]
"""Which image-diffusion network was fine-tuned: Stable Diffusion 1.5, PixArt-Sigma, Stable Diffusion 3.5 medium."""

Control = Literal["depth", "normal", "canny"]
"""What a ControlNet is given."""

SchedulerName = Literal["sde-dpmsolver++", "dpmsolver++", "ddim", "flow"]
"""How noise is taken away step by step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GSReconConfig:
    """Size of the network that turns four views into grids of Gaussians. The defaults are the released ones."""

    input_res: int = 256
    """Side of the views in pixels; a multiple of `patch_size`."""
    patch_size: int = 8
    """Side of the squares that become one token."""
    dim: int = 512
    """Channels of the transformer; a multiple of `num_heads`."""
    num_blocks: int = 12
    """Blocks of the transformer."""
    num_heads: int = 8
    """Attention heads."""

    def __post_init__(self) -> None:
        if self.input_res % self.patch_size or min(self.input_res, self.patch_size, self.num_blocks) < 1:
            raise InputError(f"input_res must be a multiple of patch_size, got {self.input_res} and {self.patch_size}")
        if self.num_heads < 1 or self.dim % self.num_heads:
            raise InputError(f"dim must be a multiple of num_heads, got {self.dim} and {self.num_heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ElevEstConfig:
    """Size of the network that estimates elevations. The defaults are the released ones (DINOv2-B with registers)."""

    embed_dim: int = 768
    """Channels of the transformer."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 12
    """Attention heads."""
    patch_size: int = 14
    """Side of the patches in pixels."""
    pretrained_size: int = 518
    """Side in pixels of the images that the position embedding was made for."""
    num_registers: int = 4
    """Extra tokens that hold no patch."""
    lowest_deg: float = -40.0
    """Lower end of the first bin, in degrees; negative elevations are above the horizon."""
    highest_deg: float = 10.0
    """Upper end of the last bin, in degrees."""
    interval_deg: float = 2.0
    """Width of a bin, in degrees."""

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.embed_dim % self.num_heads:
            raise InputError(f"embed_dim must be a multiple of num_heads, got {self.embed_dim} and {self.num_heads}")
        if not self.interval_deg > 0 or not self.highest_deg > self.lowest_deg:
            raise InputError("interval_deg must be above 0 and highest_deg above lowest_deg")

    @property
    def num_bins(self) -> int:
        """Number of elevation bins."""
        return round((self.highest_deg - self.lowest_deg) / self.interval_deg)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationConfig:
    """How objects are generated."""

    num_steps: int | None = None
    """Steps of the scheduler; None takes the model's own: 20, or 28 for Stable Diffusion 3.5."""
    guidance: float | None = None
    """How much the result is driven toward the condition, at least 1; None takes the model's own: 7.5, 4.5 or 5 with a
    text, 2 with an image."""
    triangle_guidance: bool = False
    """Let the guidance rise from the first view to the one opposite and fall again."""
    smallest_guidance: float = 1.0
    """Guidance of the first view with `triangle_guidance`."""
    scheduler: SchedulerName | None = None
    """How noise is taken away; None takes the model's own."""
    negative_prompt: str = ""
    """What to turn away from."""
    seed: int = 0
    """Of the noise of the first object; each next one has the next seed."""
    eta: float = 1.0
    """Noise that the ddim scheduler adds, in [0, 1]."""
    elevation_deg: float | None = None
    """Height of the views over the horizon in degrees, positive upward; None is 10, or the estimate with an image and
    an estimator."""
    distance: float = 1.4
    """Distance of the views from the object's middle."""
    control_scale: float = 1.0
    """Weight of what a ControlNet adds."""
    opacity_threshold: float = 0.0
    """Gaussians that are not more opaque than this are not drawn, in [0, 1)."""

    def __post_init__(self) -> None:
        if self.num_steps is not None and self.num_steps < 1:
            raise InputError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.guidance is not None and self.guidance < 1:
            raise InputError(f"guidance must be at least 1, got {self.guidance}")
        if not 0 <= self.eta <= 1 or not 0 <= self.opacity_threshold < 1:
            raise InputError("eta must be in [0, 1] and opacity_threshold in [0, 1)")
        if self.seed < 0:
            raise InputError(f"a seed is at least 0, got {self.seed}")
        if self.elevation_deg is not None and not -90 < self.elevation_deg < 90:
            raise InputError(f"elevation_deg must be between -90 and 90, got {self.elevation_deg}")
        if not self.distance > 0.5:
            raise InputError(f"distance must be more than 0.5, the object's radius, got {self.distance}")
