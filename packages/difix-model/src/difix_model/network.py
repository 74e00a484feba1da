"""DifixNetwork: views of a scene in [-1, 1] in, the same views without artifacts out; no input or output."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from difix_model.config import RENDERED_VIEW, TIMESTEP, NetworkConfig
from difix_model.denoise import predict_clean
from difix_model.lora import UNET_ADAPTER, add_lora, merge_lora
from difix_model.unet import build_unet, lora_targets, predict_noise
from difix_model.vae import DifixVae

Decode = Literal["all", "target"]


@dataclass(frozen=True, eq=False)
class EncodedViews:
    """Scaled latents of views and the activations that the decoder's skip connections read."""

    z: Float[Tensor, "b v c h w"]
    skips: tuple[Float[Tensor, "b v _ _ _"], ...]

    def target(self) -> "EncodedViews":
        """Keep the view to fix only."""
        kept = slice(RENDERED_VIEW, RENDERED_VIEW + 1)
        return EncodedViews(z=self.z[:, kept], skips=tuple(skip[:, kept] for skip in self.skips))


class DifixNetwork(nn.Module):
    """The single-step enhancer: encode, one denoising step, decode with skips from the encoder."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = build_unet(config.unet, latent_channels=config.vae.latent_channels)
        self.vae = DifixVae(config.vae)

    def forward(
        self,
        x: Float[Tensor, "b v c=3 h w"],
        *,
        text_embedding: Float[Tensor, "*b n d"],
        timestep: int = TIMESTEP,
        posterior_noise: Float[Tensor, "..."] | None = None,
        decode: Decode = "all",
        clamp: bool = True,
    ) -> Float[Tensor, "b v2 c=3 h w"]:
        """Fix the views.

        Args:
            x: Images in [-1, 1]; view 0 is the render, the others are references. Sides are multiples of the
                autoencoder's downscale factor.
            text_embedding: Embedding of the prompt, one for all samples or one per sample.
            timestep: Diffusion timestep that the input is taken to be at.
            posterior_noise: Standard normal draw of the latents' shape, which makes the latent a sample as in the
                released code; None takes the mean, so that the result is deterministic.
            decode: "all" returns every view, "target" only the render (the same values, at less cost).
            clamp: Whether to clamp the output to [-1, 1]; a loss may want to see what lies beyond.

        Returns:
            Fixed views in [-1, 1].
        """
        encoded = self.encode(x, posterior_noise=posterior_noise)
        denoised = self.denoise(encoded, text_embedding=text_embedding, timestep=timestep)
        if decode == "target":
            denoised = denoised.target()
        return self.decode(denoised, clamp=clamp)

    def fix_targets(
        self,
        x: Float[Tensor, "b c=3 h w"],
        reference_z: Float[Tensor, "b r c2 h2 w2"] | None,
        *,
        text_embedding: Float[Tensor, "*b n d"],
        timestep: int = TIMESTEP,
    ) -> Float[Tensor, "b c=3 h w"]:
        """Fix renders with references that are already encoded: the same values as `forward`, at the least cost.

        Only the render is encoded and decoded, and only its skip activations exist: those of references are never read.

        Args:
            x: Renders in [-1, 1].
            reference_z: From `encode_latents`; None means no references.
            text_embedding: Embedding of the prompt, one for all samples or one per sample.
            timestep: Diffusion timestep that the input is taken to be at.

        Returns:
            Fixed renders in [-1, 1].
        """
        target = self.encode(x[:, None])
        z = target.z if reference_z is None else torch.cat([target.z, reference_z.to(target.z)], dim=1)
        clean = self.denoise_latents(z, text_embedding=text_embedding, timestep=timestep)
        target = dataclasses.replace(target, z=clean[:, RENDERED_VIEW : RENDERED_VIEW + 1])
        return self.decode(target)[:, 0]

    def encode_latents(self, x: Float[Tensor, "n c=3 h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Encode references to scaled latents, which is all that is needed of them; no skip activations are kept."""
        self._check_size(x)
        return self.config.vae.scaling_factor * self.vae.encode(x, keep_skips=False).mean

    def encode(
        self, x: Float[Tensor, "b v c=3 h w"], *, posterior_noise: Float[Tensor, "..."] | None = None
    ) -> EncodedViews:
        """Encode views; views do not influence each other, so the encoding of a reference may be kept and reused."""
        self._check_size(x)
        num_views = x.shape[1]
        encoded = self.vae.encode(rearrange(x, "b v c h w -> (b v) c h w"))
        noise = None if posterior_noise is None else posterior_noise.reshape(encoded.mean.shape)
        z = self.config.vae.scaling_factor * encoded.latents(noise)
        return EncodedViews(
            z=rearrange(z, "(b v) c h w -> b v c h w", v=num_views),
            skips=tuple(rearrange(skip, "(b v) c h w -> b v c h w", v=num_views) for skip in encoded.skips),
        )

    def denoise(
        self, encoded: EncodedViews, *, text_embedding: Float[Tensor, "*b n d"], timestep: int = TIMESTEP
    ) -> EncodedViews:
        """Take the single step on the latents of all views; the skips are passed on."""
        clean = self.denoise_latents(encoded.z, text_embedding=text_embedding, timestep=timestep)
        return dataclasses.replace(encoded, z=clean)

    def denoise_latents(
        self, z: Float[Tensor, "b v c h w"], *, text_embedding: Float[Tensor, "*b n d"], timestep: int = TIMESTEP
    ) -> Float[Tensor, "b v c h w"]:
        """Take the single step on scaled latents of all views."""
        noise = self.predict_noise(z, text_embedding=text_embedding, timestep=timestep)
        precise = torch.promote_types(noise.dtype, torch.float32)
        return predict_clean(z.to(precise), noise.to(precise), timestep).to(z.dtype)

    def predict_noise(
        self, z: Float[Tensor, "b v c h w"], *, text_embedding: Float[Tensor, "*b n d"], timestep: int = TIMESTEP
    ) -> Float[Tensor, "b v c h w"]:
        """Return the UNet's prediction for scaled latents."""
        embedding = text_embedding.to(z)
        if embedding.ndim == 2:
            embedding = embedding[None]
        if embedding.shape[0] not in (1, z.shape[0]):
            raise ValueError(
                f"text_embedding must have one entry or one per sample ({z.shape[0]}), got {embedding.shape[0]}"
            )
        embedding = embedding.expand(z.shape[0], -1, -1)
        return predict_noise(self.unet, z, timestep, embedding, joint=self.config.reference_attention)

    def decode(self, encoded: EncodedViews, *, clamp: bool = True) -> Float[Tensor, "b v c=3 h w"]:
        """Decode scaled latents with the skips of the same views."""
        num_views = encoded.z.shape[1]
        x = self.vae.decode(
            rearrange(encoded.z, "b v c h w -> (b v) c h w") / self.config.vae.scaling_factor,
            tuple(rearrange(skip, "b v c h w -> (b v) c h w") for skip in encoded.skips),
        )
        x = rearrange(x, "(b v) c h w -> b v c h w", v=num_views)
        return x.clamp(-1.0, 1.0) if clamp else x

    def merge_lora(self) -> "DifixNetwork":
        """Fold all adapters into their layers, in place, for inference; returns the network itself."""
        self.vae.merge_lora()
        merge_lora(self.unet)
        unet = dataclasses.replace(self.config.unet, lora_rank=0)
        self.config = dataclasses.replace(self.config, vae=self.vae.config, unet=unet)
        return self

    def add_unet_lora(self, rank: int, alpha: float) -> None:
        """Give the UNet fresh adapters, which change nothing until they are trained.

        Args:
            alpha: Updates are scaled by alpha / rank.

        Raises:
            ValueError: If it has adapters already, or the rank is not positive.
        """
        if self.config.unet.lora_rank or rank < 1:
            raise ValueError(f"adapters need a positive rank and a UNet without adapters, got the rank {rank}")
        add_lora(self.unet, lora_targets(self.unet), rank=rank, alpha=alpha, adapter=UNET_ADAPTER)
        unet = dataclasses.replace(self.config.unet, lora_rank=rank, lora_alpha=alpha)
        self.config = dataclasses.replace(self.config, unet=unet)

    def _check_size(self, x: Tensor) -> None:
        factor = self.config.vae.downscale_factor
        if x.shape[-2] % factor or x.shape[-1] % factor:
            raise ValueError(f"image sides must be multiples of {factor}, got {x.shape[-1]}x{x.shape[-2]}: pad first")
