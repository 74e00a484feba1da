"""GSVAE: grids of Gaussians to latents of an image-diffusion network and back."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffsplat.splat_grids import NUM_CHANNELS
from diffsplat.stock import AutoencoderKL, DecoderTiny

TINY_DECODER: dict[str, Any] = {
    "decoder_block_out_channels": (64, 64, 64, 64),
    "num_decoder_blocks": (3, 3, 3, 1),
    "upsampling_scaling_factor": 2,
}
"""Size of the tiny decoder that is released (TAESD's)."""

SMALL_VARIANCE = 0.01
"""Added to the channels' variances before they are made equal."""

VAE_FAMILIES: dict[str, dict[str, Any]] = {
    "sd": {"latent_channels": 4, "scaling_factor": 0.18215},
    "sdxl_fp16": {"latent_channels": 4, "scaling_factor": 0.13025},
    "sd3": {
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}
"""What the three image VAEs differ in, by the names that published GSVAEs end in."""

FULL_SIZE_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
"""Size of the image VAEs, common to the three."""


class GSVAE(nn.Module):
    """An image VAE with twelve channels, one view at a time, and a tiny decoder for training."""

    def __init__(self, vae_config: dict[str, Any], tiny_config: dict[str, Any] | None = None) -> None:
        """Make a network with fresh weights.

        Args:
            vae_config: Configuration of the image VAE, as diffusers' `AutoencoderKL` has it; its input and output
                channels become twelve.
            tiny_config: Size of the tiny decoder, None for the released one, with as many stages as the VAE has.
        """
        super().__init__()
        num_stages = len(vae_config["block_out_channels"])
        released = {
            key: value[-num_stages:] if isinstance(value, tuple) else value for key, value in TINY_DECODER.items()
        }
        tiny = {**released, **(tiny_config or {})}
        known = {key: value for key, value in vae_config.items() if not key.startswith("_")}
        self.vae: Any = AutoencoderKL.from_config({**known, "in_channels": NUM_CHANNELS, "out_channels": NUM_CHANNELS})
        self.tiny_decoder = DecoderTiny(
            in_channels=int(self.vae.config["latent_channels"]),
            out_channels=NUM_CHANNELS,
            num_blocks=tuple(tiny["num_decoder_blocks"]),
            block_out_channels=tuple(tiny["decoder_block_out_channels"]),
            upsampling_scaling_factor=int(tiny["upsampling_scaling_factor"]),
            act_fn="relu",
            upsample_fn="nearest",
        )

    @classmethod
    def for_family(cls, family: str) -> GSVAE:
        """The published size: `sd`, `sdxl_fp16` or `sd3`."""
        return cls({**FULL_SIZE_VAE, **VAE_FAMILIES[family]})

    @property
    def scaling_factor(self) -> float:
        """What shifted latents are multiplied by."""
        return float(self.vae.config["scaling_factor"])

    @property
    def shift_factor(self) -> float:
        """What is taken off latents first."""
        return float(self.vae.config.get("shift_factor") or 0.0)

    @property
    def downscaling(self) -> int:
        """Pixels of a grid per latent pixel and axis."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def load_image_vae(self, state: dict[str, Tensor]) -> None:
        """Start from an image VAE's weights: the first and last convolution are repeated for the groups of channels."""
        repeats = NUM_CHANNELS // 3
        start = dict(state)
        start["encoder.conv_in.weight"] = state["encoder.conv_in.weight"].repeat(1, repeats, 1, 1)
        for name in ("weight", "bias"):
            values = state[f"decoder.conv_out.{name}"]
            start[f"decoder.conv_out.{name}"] = values.repeat(repeats, *([1] * (values.ndim - 1)))
        self.vae.load_state_dict(start)

    @torch.no_grad()
    def begin_from_nothing(
        self, examples: Float[Tensor, "n c=12 h w"] | None = None, *, log_variance: float = -5.0
    ) -> None:
        """Draw fresh weights from which a short training gets far; not in the original, which starts from an image VAE.

        Convolutions keep the variance of what they are given, without biases, and residual blocks begin as identities:
        the usual start shrinks signals from layer to layer until biases drown them. Posteriors begin narrow: their
        usual noise of standard deviation 1 hides what tells objects apart, colors above all.

        Args:
            examples: Grids whose channels the first convolution whitens: that a place is empty shows in all of them,
                and would otherwise be learned long before the objects' colors.
            log_variance: Of every latent at the start.
        """
        for name, module in self.vae.named_modules():
            if isinstance(module, nn.Conv2d):
                std = 0.0 if name.endswith("conv2") else module.weight[0].numel() ** -0.5
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        last = self.vae.quant_conv if self.vae.quant_conv is not None else self.vae.encoder.conv_out
        num = int(self.vae.config["latent_channels"])
        last.weight[num:] = 0
        last.bias[num:] = log_variance
        if examples is None:
            return
        pixels = examples.movedim(1, -1).flatten(0, -2)
        mean, (variances, axes) = pixels.mean(dim=0), torch.linalg.eigh(torch.cov(pixels.T))
        whitening = axes @ torch.diag((variances + SMALL_VARIANCE).rsqrt()) @ axes.T
        first = self.vae.encoder.conv_in
        first.weight.copy_(torch.einsum("oihw,ij->ojhw", first.weight, whitening))
        first.bias.copy_(-first.weight.sum(dim=(2, 3)) @ mean)
        self.vae.decoder.conv_out.bias.copy_(mean)

    @torch.no_grad()
    def change_units(self, mean: Float[Tensor, " l"], unit: Float[Tensor, " l"]) -> None:
        """Let every latent count from a mean, in a unit; what is coded and decoded stays the same. Not in the original.

        A diffusion then sees all latents alike, where a fresh network has made some much larger than others.

        Raises:
            ValueError: The VAE has no convolutions around its latents to take the change in.
        """
        first, last = self.vae.quant_conv, self.vae.post_quant_conv
        if first is None or last is None:
            raise ValueError("a VAE without quant_conv and post_quant_conv keeps its units")
        num, column = len(mean), unit[:, None, None, None]
        first.weight[:num] /= column
        first.bias[:num] = (first.bias[:num] - mean) / unit
        first.bias[num:] -= 2 * unit.log()
        last.bias += last.weight[:, :, 0, 0] @ mean
        last.weight *= column[:, 0]

    def posterior(
        self, grids: Float[Tensor, "n c=12 h w"]
    ) -> tuple[Float[Tensor, "n l y x"], Float[Tensor, "n l y x"]]:
        """Mean and log variance of the latents, not scaled."""
        found = self.vae.encode(grids).latent_dist
        return found.mean, found.logvar

    def encode(
        self, grids: Float[Tensor, "n c=12 h w"], *, generator: torch.Generator | None = None, sample: bool = False
    ) -> Float[Tensor, "n l y x"]:
        """Latents, not scaled: the mean, or a sample of the posterior."""
        mean, logvar = self.posterior(grids)
        if not sample:
            return mean
        noise = torch.randn(
            mean.shape, generator=generator, dtype=mean.dtype, device=generator.device if generator else mean.device
        )
        return mean + torch.exp(0.5 * logvar) * noise.to(mean)

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as diffusion sees them."""
        return self.scaling_factor * (latents - self.shift_factor)

    def unscaled(self, latents: Tensor) -> Tensor:
        """The inverse of `scaled`."""
        return latents / self.scaling_factor + self.shift_factor

    def decode(self, latents: Float[Tensor, "n l y x"], *, one_by_one: bool = True) -> Float[Tensor, "n c=12 h w"]:
        """Grids of unscaled latents, in [-1, 1].

        Args:
            latents: Not scaled.
            one_by_one: Decode a view at a time, which needs less memory.
        """
        parts = latents.split(1) if one_by_one else (latents,)
        return torch.cat([self.vae.decode(part).sample for part in parts]).clamp(-1, 1)

    def decode_tiny(self, latents: Float[Tensor, "n l y x"]) -> Float[Tensor, "n c=12 h w"]:
        """Grids of unscaled latents by the tiny decoder, in [-1, 1]."""
        x = self.scaled(latents)
        if self.vae.post_quant_conv is not None:
            x = self.vae.post_quant_conv(x)
        return self.tiny_decoder(x).clamp(-1, 1)


def kl_to_normal(mean: Float[Tensor, "n l y x"], logvar: Float[Tensor, "n l y x"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of the posterior from the standard normal, per sample, mean over the batch."""
    return (0.5 * (mean.square() + logvar.exp() - 1 - logvar)).sum(dim=(1, 2, 3)).mean()
