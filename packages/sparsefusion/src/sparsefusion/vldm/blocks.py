"""Convolutional blocks of the denoiser."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from sparsefusion.vldm.attention import CrossAttention, OnPixels

NORM_GROUPS = 8


class SinusoidalTime(nn.Module):
    """Sines and cosines of learned frequencies of a number, with the number itself in front."""

    def __init__(self, num_frequencies: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(num_frequencies))

    def forward(self, x: Float[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Embed."""
        angles = x[:, None] * self.weights * (2 * math.pi)
        return torch.cat([x[:, None], angles.sin(), angles.cos()], dim=-1)


class MultiKernelConv(nn.Module):
    """Convolutions of several sizes side by side; the larger the kernel, the fewer channels come of it."""

    def __init__(self, channels_in: int, channels: int, kernels: tuple[int, ...] = (3, 7, 15)) -> None:
        super().__init__()
        widths = [channels // 2 ** (i + 1) for i in range(len(kernels) - 1)]
        widths.append(channels - sum(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(channels_in, width, kernel, padding=kernel // 2)
            for width, kernel in zip(widths, kernels, strict=True)
        )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Convolve."""
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class GlobalContext(nn.Module):
    """A gate for every channel, from an attention-weighted mean over the pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(3, channels // 2)
        self.to_k = nn.Conv2d(channels, 1, 1)
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """The gate, in [0, 1]."""
        weights = rearrange(self.to_k(x), "b 1 h w -> b (h w) 1").softmax(dim=1)
        pooled = rearrange(x, "b c h w -> b c (h w)") @ weights
        return self.net(pooled[..., None])


class NormConv(nn.Module):
    """Group norm, scale and shift, SiLU, 3x3 convolution."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.groupnorm = nn.GroupNorm(NORM_GROUPS, channels_in)
        self.project = nn.Conv2d(channels_in, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b i h w"], scale_shift: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "b o h w"]:
        """Transform a feature map."""
        x = self.groupnorm(x)
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return self.project(torch.nn.functional.silu(x))


class ResnetBlock(nn.Module):
    """Two convolutions modulated by time, with optional cross-attention and channel gates.

    Args:
        gated: Whether a global context gates the channels.
        cross_attention: Attention to the context between the convolutions.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        time_dim: int,
        *,
        gated: bool = False,
        cross_attention: CrossAttention | None = None,
    ) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, 2 * channels))
        self.cross_attn = None if cross_attention is None else OnPixels(cross_attention)
        self.block1 = NormConv(channels_in, channels)
        self.block2 = NormConv(channels, channels)
        self.gca = GlobalContext(channels) if gated else None
        self.res_conv = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b i h w"],
        time: Float[Tensor, "b t"],
        context: Float[Tensor, "b m k"] | None = None,
    ) -> Float[Tensor, "b o h w"]:
        """Transform a feature map."""
        scale, shift = rearrange(self.time_mlp(time), "b (two c) -> two b c 1 1", two=2)
        h = self.block1(x)
        if self.cross_attn is not None and context is not None:
            h = self.cross_attn(h, context) + h
        h = self.block2(h, (scale, shift))
        if self.gca is not None:
            h = h * self.gca(h)
        return h + self.res_conv(x)


class PixelShuffleUpsample(nn.Module):
    """Twice the size: a 1x1 convolution, SiLU and pixel shuffle."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels_in, 4 * channels, 1)
        # All four pixels of a block start equal, so that no checkerboard has to be unlearned.
        first = torch.empty(channels, channels_in, 1, 1)
        nn.init.kaiming_uniform_(first)
        conv.weight.data.copy_(first.repeat_interleave(4, dim=0))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.net = nn.Sequential(conv, nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o y x"]:
        """Upsample."""
        return self.net(x)


class ParallelConv(nn.Module):
    """A 3x3 and a 1x1 convolution, added: what the last level has instead of downsampling."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.fns = nn.ModuleList([nn.Conv2d(channels_in, channels, 3, padding=1), nn.Conv2d(channels_in, channels, 1)])

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Convolve."""
        return self.fns[0](x) + self.fns[1](x)
