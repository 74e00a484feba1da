"""Architecture of the network and the constants of its single step; imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from difix_model.errors import InputError, first_problems
from output_files import check_range

TIMESTEP = 199
"""The diffusion timestep of the single step. Paper and released code: 199."""

PROMPT = "remove degradation"
"""The prompt that the released weights were trained with."""

RENDERED_VIEW = 0
"""Index of the view to fix on the view axis."""

FIRST_REFERENCE_VIEW = 1
"""Index of the first reference on the view axis; the others follow it."""

NUM_TRAIN_TIMESTEPS = 1000
BETA_START = 0.00085
BETA_END = 0.012
"""The scaled-linear noise schedule of Stable Diffusion 2.1, which SD-Turbo and Difix share."""

DOWN_BLOCK_TYPES = ("CrossAttnDownBlock2D", "DownBlock2D")
UP_BLOCK_TYPES = ("CrossAttnUpBlock2D", "UpBlock2D")


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """The stock conditional UNet; the defaults are those of SD-Turbo."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels of each level, finest first."""

    layers_per_block: int = 2
    """ResNet (and transformer) layers of each down block; up blocks have one more."""

    num_heads: tuple[int, ...] = (5, 10, 20, 20)
    """Attention heads of each level. diffusers' configuration files call it `attention_head_dim`."""

    cross_attention_dim: int = 1024
    """Width of the text embedding."""

    norm_num_groups: int = 32
    """Groups of every group norm; must divide every channel count."""

    down_block_types: tuple[str, ...] = (DOWN_BLOCK_TYPES[0],) * 3 + (DOWN_BLOCK_TYPES[1],)
    """diffusers block of each level on the way down: with attention or without."""

    up_block_types: tuple[str, ...] = (UP_BLOCK_TYPES[1],) + (UP_BLOCK_TYPES[0],) * 3
    """diffusers block of each level on the way up, coarsest first."""

    transformer_layers_per_block: int = 1
    """Transformer blocks of every attention layer."""

    use_linear_projection: bool = True
    """Whether transformers project in and out with linear layers (True) or 1x1 convolutions."""

    upcast_attention: bool = False
    """Whether attention scores are computed in float32."""

    lora_rank: int = 0
    """Rank of the adapters on convolutions, projections and attention; 0 means none. Released weights: none."""

    lora_alpha: float = 8.0
    """The adapters' output is scaled by lora_alpha / lora_rank."""

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        check_range(self, "positive", "layers_per_block", "cross_attention_dim", "norm_num_groups", "lora_alpha")
        check_range(self, "positive", "transformer_layers_per_block")
        check_range(self, "0 or more", "lora_rank", prefix="unet.")
        _check_channels("unet.block_out_channels", self.block_out_channels, self.norm_num_groups)
        for name in ("num_heads", "down_block_types", "up_block_types"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"unet.{name} must have one entry per level ({levels}), got {getattr(self, name)}")
        for name, known in (("down_block_types", DOWN_BLOCK_TYPES), ("up_block_types", UP_BLOCK_TYPES)):
            unknown = [block for block in getattr(self, name) if block not in known]
            if unknown:
                raise ValueError(f"unet.{name} must be among {known}, got {unknown}")
        for channels, heads in zip(self.block_out_channels, self.num_heads, strict=True):
            if heads < 1 or channels % heads:
                raise ValueError(f"unet.num_heads must divide the channels of its level, got {heads} for {channels}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeConfig:
    """The stock autoencoder plus the skip connections and the low-rank adapters of its decoder."""

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level, finest first. An image is 2 ** (levels - 1) times as large as its latent."""

    layers_per_block: int = 2
    """ResNet layers of each encoder block; decoder blocks have one more."""

    latent_channels: int = 4
    """Channels of the latent; the UNet's input and output too."""

    norm_num_groups: int = 32
    """Groups of every group norm; must divide every channel count."""

    scaling_factor: float = 0.18215
    """Factor from the autoencoder's latent to the UNet's. SD-Turbo: 0.18215."""

    mid_block_attention: bool = True
    """Whether the middle blocks of encoder and decoder attend over all positions."""

    lora_rank: int = 4
    """Rank of the adapters on the decoder's convolutions and projections; 0 means none. Released code: 4."""

    lora_alpha: float = 8.0
    """The adapters' output is scaled by lora_alpha / lora_rank. Released weights: 8, at every rank."""

    gamma: float = 1.0
    """Strength of the skip connections. Released weights: 1."""

    ignore_skip: bool = False
    """Whether the decoder leaves the skip connections out."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "layers_per_block", "latent_channels", "norm_num_groups")
        check_range(self, "positive", "scaling_factor", "lora_alpha")
        _check_channels("vae.block_out_channels", self.block_out_channels, self.norm_num_groups)
        check_range(self, "0 or more", "lora_rank", prefix="vae.")

    @property
    def downscale_factor(self) -> int:
        """Pixels per latent position along one side; image sizes must be multiples of it."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Everything that decides the network's parameters and what it computes with them."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    """The denoiser."""

    vae: VaeConfig = field(default_factory=VaeConfig)
    """The autoencoder."""

    reference_attention: bool = True
    """Whether self-attention runs across the views of a sample (nvidia/difix_ref) or per view (nvidia/difix)."""

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """Read back what `to_dict` gave.

        Raises:
            InputError: If fields are missing or unknown, or if a value is out of range.
        """
        problems = []
        for part, part_type in (("", cls), ("unet", UNetConfig), ("vae", VaeConfig)):
            given = values.get(part, {}) if part else values
            if not isinstance(given, dict):
                raise InputError(f"the network configuration's {part or 'top level'} must be an object, got {given!r}")
            known = {f.name for f in dataclasses.fields(part_type)}
            prefix = f"{part}." if part else ""
            problems += [f"unknown field {prefix}{name}" for name in sorted(set(given) - known)]
            problems += [f"missing field {prefix}{name}" for name in sorted(known - set(given))]
        if problems:
            raise InputError(f"the network configuration does not fit this version: {first_problems(problems)}")
        try:
            return cls(
                unet=UNetConfig(**_with_tuples(values["unet"])),
                vae=VaeConfig(**_with_tuples(values["vae"])),
                reference_attention=bool(values["reference_attention"]),
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"the network configuration holds an invalid value: {error}") from error


def tiny_config(*, reference_attention: bool = True, lora_rank: int = 2) -> NetworkConfig:
    """Return a network of Difix's architecture that runs in milliseconds, for tests and demonstrations.

    Args:
        reference_attention: Whether self-attention runs across views.
        lora_rank: Rank of the decoder's adapters; 0 means none.
    """
    return NetworkConfig(
        unet=UNetConfig(
            block_out_channels=(16, 32),
            layers_per_block=1,
            num_heads=(2, 4),
            cross_attention_dim=16,
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        vae=VaeConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, lora_rank=lora_rank),
        reference_attention=reference_attention,
    )


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _check_channels(name: str, channels: tuple[int, ...], groups: int) -> None:
    if not channels or any(count < 1 or count % groups for count in channels):
        raise ValueError(f"{name} must be positive multiples of norm_num_groups ({groups}), got {channels}")
