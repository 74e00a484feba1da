"""The autoencoder: the encoder returns its skip activations as values, the decoder takes them as arguments."""

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from difix_model.config import VaeConfig
from difix_model.lora import add_lora, merge_lora

LORA_SUFFIXES = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "to_k", "to_q", "to_v", "to_out.0")
"""Endings of the decoder layers that carry adapters in the released weights, besides the skip convolutions."""

SKIP_INIT = 1e-5
"""Initial value of every weight of the skip convolutions. Released code: 1e-5."""

LOGVAR_RANGE = (-30.0, 20.0)

Skips = tuple[Float[Tensor, "n _ _ _"], ...]
"""Encoder activations, finest first: the input of each down block."""


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """What the encoder knows of a batch of images: the latent's normal distribution and the skip activations."""

    mean: Float[Tensor, "n c h w"]
    logvar: Float[Tensor, "n c h w"]
    skips: Skips

    def latents(self, noise: Float[Tensor, "n c h w"] | None = None) -> Float[Tensor, "n c h w"]:
        """Return the unscaled latents: the mean, or a sample if standard normal noise is given."""
        if noise is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.logvar) * noise.to(self.mean)


class DifixVae(nn.Module):
    """diffusers' AutoencoderKL modules, skip convolutions and adapters; parameter names of the published weights."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        """Whether training recomputes the decoder's blocks in the backward pass instead of keeping them."""
        levels = len(config.block_out_channels)
        stock = AutoencoderKL(
            block_out_channels=config.block_out_channels,  # type: ignore[arg-type]
            down_block_types=("DownEncoderBlock2D",) * levels,  # type: ignore[arg-type]
            up_block_types=("UpDecoderBlock2D",) * levels,  # type: ignore[arg-type]
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_num_groups,
            mid_block_add_attention=config.mid_block_attention,
        )
        self.encoder = stock.encoder
        self.decoder = stock.decoder
        self.quant_conv = cast("nn.Conv2d", stock.quant_conv)
        self.post_quant_conv = cast("nn.Conv2d", stock.post_quant_conv)
        for number, (channels_in, channels_out) in enumerate(skip_channels(config.block_out_channels), start=1):
            skip_conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            nn.init.constant_(skip_conv.weight, SKIP_INIT)
            setattr(self.decoder, skip_name(number), skip_conv)
        if config.lora_rank:
            add_lora(self, self.lora_targets(), rank=config.lora_rank, alpha=config.lora_alpha)

    def lora_targets(self) -> list[str]:
        """Return the names of the decoder layers that carry adapters (or would, at rank 0)."""
        skips = tuple(skip_name(i + 1) for i in range(len(self.config.block_out_channels)))
        endings = LORA_SUFFIXES + skips
        names = (name.removesuffix(".base_layer") for name, _ in self.named_modules())
        return sorted({name for name in names if name.startswith("decoder.") and name.endswith(endings)})

    def merge_lora(self) -> None:
        """Fold the adapters into the layers, in place; `lora_rank` becomes 0."""
        merge_lora(self)
        self.config = dataclasses.replace(self.config, lora_rank=0)

    def encode(self, x: Float[Tensor, "n c=3 h w"], *, keep_skips: bool = True) -> EncodedImages:
        """Encode images in [-1, 1] whose sides are multiples of the downscale factor.

        Args:
            keep_skips: Whether to return the skip activations; without them less memory is used.
        """
        sample = self.encoder.conv_in(x)
        skips = []
        for down_block in self.encoder.down_blocks:
            if keep_skips:
                skips.append(sample)
            sample = down_block(sample)
        sample = self.encoder.mid_block(sample)
        sample = self.encoder.conv_out(self.encoder.conv_act(self.encoder.conv_norm_out(sample)))
        mean, logvar = self.quant_conv(sample).chunk(2, dim=1)
        return EncodedImages(mean=mean, logvar=logvar.clamp(*LOGVAR_RANGE), skips=tuple(skips))

    def decode(self, latents: Float[Tensor, "n c h w"], skips: Skips) -> Float[Tensor, "n c2=3 h2 w2"]:
        """Decode unscaled latents to images, about in [-1, 1] (not clamped).

        Args:
            skips: Activations from `encode` of the same images; unread where the configuration ignores skips.
        """
        decoder = self.decoder
        sample = self._block(decoder.mid_block, decoder.conv_in(self.post_quant_conv(latents)))
        for number, up_block in enumerate(decoder.up_blocks, start=1):
            if not self.config.ignore_skip:
                skip_conv = decoder.get_submodule(skip_name(number))
                sample = sample + skip_conv(skips[-number] * self.config.gamma)
            sample = self._block(up_block, sample)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(sample)))

    def _block(self, block: nn.Module, sample: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, sample, use_reentrant=False)
        return block(sample)


def skip_name(number: int) -> str:
    """Return the published name of a skip convolution; they are counted from 1, coarsest first."""
    return f"skip_conv_{number}"


def skip_channels(block_out_channels: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return input and output channels of the skip convolutions, coarsest first.

    The input is what enters the encoder's down block, the output what enters the decoder's up block, of one level.
    """
    entering_down = (block_out_channels[0], *block_out_channels[:-1])
    entering_up = (block_out_channels[-1], *reversed(block_out_channels[1:]))
    return list(zip(reversed(entering_down), entering_up, strict=True))
