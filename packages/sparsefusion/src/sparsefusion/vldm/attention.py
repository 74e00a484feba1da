"""Attention of the denoiser: keys and values shared by all heads, a learned null token, gain-only layer norms."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

NORM_EPS = 1e-5


class GainNorm(nn.Module):
    """Layer norm with a gain and no bias, over the last axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        """Normalize."""
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.g, None, NORM_EPS)


class ChannelNorm(nn.Module):
    """Layer norm with a gain and no bias, over the channels of a feature map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalize."""
        variance, mean = torch.var_mean(x, dim=1, unbiased=False, keepdim=True)
        return (x - mean) * (variance + NORM_EPS).rsqrt() * self.g


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, to a null token and, where there is one, to a context.

    Args:
        head_dim: Width of a head; all heads share keys and values.
        context_dim: Channels of the context; None for attention without one.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = GainNorm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, head_dim))
        self.to_q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * head_dim, bias=False)
        self.to_context = None
        if context_dim is not None:
            self.to_context = nn.Sequential(nn.LayerNorm(context_dim), nn.Linear(context_dim, 2 * head_dim))
        self.to_out = nn.Sequential(nn.Linear(num_heads * head_dim, dim, bias=False), GainNorm(dim))

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m k"] | None = None
    ) -> Float[Tensor, "b n c"]:
        """Attend."""
        x = self.norm(x)
        query = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.num_heads)
        tokens = [repeat(self.null_kv, "two d -> b 1 (two d)", b=len(x)), self.to_kv(x)]
        if self.to_context is not None and context is not None:
            tokens.insert(0, self.to_context(context))
        key, value = rearrange(torch.cat(tokens, dim=1), "b n (two d) -> two b 1 n d", two=2)
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key.expand(-1, self.num_heads, -1, -1), value.expand(-1, self.num_heads, -1, -1)
        )
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class CrossAttention(nn.Module):
    """Attention of a sequence to a context and a null token; here every head has its own keys and values."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, context_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = GainNorm(dim)
        self.null_kv = nn.Parameter(torch.randn(2, head_dim))
        self.to_q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * num_heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(num_heads * head_dim, dim, bias=False), GainNorm(dim))

    def forward(self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b m k"]) -> Float[Tensor, "b n c"]:
        """Attend."""
        query = rearrange(self.to_q(self.norm(x)), "b n (h d) -> b h n d", h=self.num_heads)
        key, value = rearrange(self.to_kv(context), "b m (two h d) -> two b h m d", two=2, h=self.num_heads)
        null_key, null_value = (
            repeat(token, "d -> b h 1 d", b=len(x), h=self.num_heads) for token in self.null_kv.unbind()
        )
        out = torch.nn.functional.scaled_dot_product_attention(
            query, torch.cat([null_key, key], dim=2), torch.cat([null_value, value], dim=2)
        )
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class OnPixels(nn.Module):
    """Runs an attention on the pixels of a feature map as a sequence."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Float[Tensor, "b c h w"], *context: Tensor) -> Float[Tensor, "b c h w"]:
        """Attend."""
        height = x.shape[-2]
        out = self.fn(rearrange(x, "b c h w -> b (h w) c"), *context)
        return rearrange(out, "b (h w) c -> b c h w", h=height)


class Residual(nn.Module):
    """Adds what goes in to what comes out."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Run and add."""
        return x + self.fn(x)


def feed_forward(dim: int, expansion: int = 2) -> nn.Sequential:
    """Two 1x1 convolutions with GELU between them, each behind a norm."""
    hidden = expansion * dim
    return nn.Sequential(
        ChannelNorm(dim),
        nn.Conv2d(dim, hidden, 1, bias=False),
        nn.GELU(),
        ChannelNorm(hidden),
        nn.Conv2d(hidden, dim, 1, bias=False),
    )


class TransformerBlock(nn.Module):
    """Self-attention with context and a feed-forward part, each added to its input."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, context_dim: int) -> None:
        super().__init__()
        attention = OnPixels(SelfAttention(dim, num_heads, head_dim, context_dim))
        self.layers = nn.ModuleList([nn.ModuleList([attention, feed_forward(dim)])])

    def forward(self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b m k"]) -> Float[Tensor, "b c h w"]:
        """Transform a feature map."""
        for attention, feed in self.layers:  # type: ignore[misc]
            x = attention(x, context) + x
            x = feed(x) + x
        return x
