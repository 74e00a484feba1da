"""The image autoencoder: a diffusers AutoencoderKL with the latents' scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from sparsefusion.config import VaeConfig

STABLE_DIFFUSION_SCALE = 0.18215
"""The scale of Stable Diffusion's latents."""


class ImageVae(nn.Module):
    """Images in [-1, 1] to scaled latents and back; the latents are the distribution's mode."""

    def __init__(self, model: AutoencoderKL, scale: float = STABLE_DIFFUSION_SCALE) -> None:
        super().__init__()
        self.model = model
        self.scale = scale

    def encode(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c y x"]:
        """Scaled latents of images in [-1, 1]."""
        return self.model.encode(x).latent_dist.mode() * self.scale  # type: ignore[union-attr]

    def decode(self, latents: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 3 h w"]:
        """Images in about [-1, 1] of scaled latents."""
        return self.model.decode(latents / self.scale).sample  # type: ignore[union-attr]


def build_autoencoder(config: VaeConfig) -> AutoencoderKL:
    """A diffusers autoencoder of the given sizes with fresh weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(config.block_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * levels,  # type: ignore[arg-type]
        block_out_channels=config.block_channels,  # type: ignore[arg-type]
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
    )
