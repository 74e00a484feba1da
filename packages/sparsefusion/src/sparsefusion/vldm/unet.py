"""The denoiser: a UNet that predicts the noise of a latent, conditioned by feature maps of the view.

Time enters as the logarithm of the signal-to-noise ratio. Names of parameters are those of the published checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sparsefusion.config import UNetConfig
from sparsefusion.vldm.attention import CrossAttention, OnPixels, Residual, SelfAttention, TransformerBlock
from sparsefusion.vldm.blocks import MultiKernelConv, ParallelConv, PixelShuffleUpsample, ResnetBlock, SinusoidalTime

NUM_TIME_FREQUENCIES = 8
NUM_TIME_TOKENS = 2
SKIP_SCALE = 2**-0.5


class Denoiser(nn.Module):
    """The published UNet at any size; attention only at the coarsest level and in the middle."""

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        dim, time_dim = config.dim, 4 * config.dim
        heads = (config.num_heads, config.head_dim)
        dims = [dim, *(dim * mult for mult in config.dim_mults)]
        levels = list(pairwise(dims))
        last = len(levels) - 1

        self.init_conv = MultiKernelConv(config.cond_channels + config.latent_channels, dim)
        self.to_time_hiddens = nn.Sequential(
            SinusoidalTime(NUM_TIME_FREQUENCIES), nn.Linear(2 * NUM_TIME_FREQUENCIES + 1, time_dim), nn.SiLU()
        )
        self.to_time_cond = nn.Sequential(nn.Linear(time_dim, time_dim))
        self.to_time_tokens = nn.Sequential(nn.Linear(time_dim, NUM_TIME_TOKENS * dim))
        self.norm_cond = nn.LayerNorm(dim)

        def blocks(channels_in: int, channels: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResnetBlock(channels_in, channels, time_dim, gated=True) for _ in range(config.num_resnet_blocks)
            )

        def attention(channels: int, level: int) -> nn.Module:
            return TransformerBlock(channels, *heads, context_dim=dim) if level == last else PassOn()

        # The first entry of every level is empty: the published layout has room there for downsampling first.
        self.downs = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Identity(),
                    ResnetBlock(channels_in, channels_in, time_dim),
                    blocks(channels_in, channels_in),
                    attention(channels_in, level),
                    ParallelConv(channels_in, channels)
                    if level == last
                    else nn.Conv2d(channels_in, channels, 4, stride=2, padding=1),
                ]
            )
            for level, (channels_in, channels) in enumerate(levels)
        )
        middle = dims[-1]

        def mid_block() -> ResnetBlock:
            return ResnetBlock(middle, middle, time_dim, cross_attention=CrossAttention(middle, *heads, dim))

        self.mid_block1 = mid_block()
        self.mid_attn = Residual(OnPixels(SelfAttention(middle, *heads)))
        self.mid_block2 = mid_block()
        self.ups = nn.ModuleList(
            nn.ModuleList(
                [
                    ResnetBlock(channels + skip, channels, time_dim),
                    blocks(channels + skip, channels),
                    attention(channels, level),
                    PixelShuffleUpsample(channels, skip) if level else nn.Identity(),
                ]
            )
            for level, (skip, channels) in reversed(list(enumerate(levels)))
        )
        self.final_res_block = ResnetBlock(dim, dim, time_dim, gated=True)
        self.final_conv = nn.Conv2d(dim, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.final_conv.weight)
        nn.init.zeros_(self.final_conv.bias)  # type: ignore[arg-type]

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        log_snr: Float[Tensor, " b"],
        cond: Float[Tensor, "b k y x"],
        keep: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The predicted noise.

        Args:
            x: Noisy latents; their sides must be multiples of ``2 ** (levels - 1)``.
            cond: Feature maps of the view; resized to the latents' size by nearest neighbor where they differ.
            keep: Samples whose condition is kept; the others are predicted without one.
        """
        if cond.shape[-2:] != x.shape[-2:]:
            cond = functional.interpolate(cond, x.shape[-2:], mode="nearest")
        if keep is not None:
            cond = cond * keep[:, None, None, None]
        x = self.init_conv(torch.cat([cond, x], dim=1))
        hidden = self.to_time_hiddens(log_snr)
        time = self.to_time_cond(hidden)
        context = self.norm_cond(rearrange(self.to_time_tokens(hidden), "b (t d) -> b t d", t=NUM_TIME_TOKENS))

        skips: list[Tensor] = []
        for _, first, blocks, attention, shrink in self.downs:  # type: ignore[misc]
            x = first(x, time)
            for block in blocks:
                x = block(x, time)
                skips.append(x)
            x = attention(x, context)
            skips.append(x)
            x = shrink(x)
        x = self.mid_block1(x, time, context)
        x = self.mid_attn(x)
        x = self.mid_block2(x, time, context)
        for first, blocks, attention, grow in self.ups:  # type: ignore[misc]
            for block in (first, *blocks):
                x = block(torch.cat([x, skips.pop() * SKIP_SCALE], dim=1), time)
            x = grow(attention(x, context))
        return self.final_conv(self.final_res_block(x, time))


class PassOn(nn.Module):
    """Stands where a level has no attention."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """What comes in."""
        return x
