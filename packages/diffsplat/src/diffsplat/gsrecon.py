"""GSRecon: four views with their normals and coordinates to grids of Gaussians, by one transformer over all patches."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.cameras import plucker_rays
from diffsplat.config import GSReconConfig
from diffsplat.splat_grids import CHANNELS, SplatGrids

IMAGE_CHANNELS = 9
"""Color over white, normals and coordinates as colors."""

MLP_STEP = 256
"""The hidden width of a block is a multiple of this."""


class RMSNorm(nn.Module):
    """Root-mean-square normalization, computed in float32."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Divide by the root mean square over the last axis and weigh the channels."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight


class Attention(nn.Module):
    """Self-attention whose queries and keys are normalized over all heads at once."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Attend from every token to every token of the same sample."""
        q, k, v = self.q_norm(self.wq(x)), self.k_norm(self.wk(x)), self.wv(x)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.num_heads) for part in (q, k, v))
        return self.wo(rearrange(functional.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class MLP(nn.Module):
    """A gated feed-forward layer (SwiGLU)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = MLP_STEP * -(-(8 * dim // 3) // MLP_STEP)
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Per token."""
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention and feed-forward, each behind its normalization and added to its input."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = RMSNorm(dim), Attention(dim, num_heads)
        self.norm2, self.mlp = RMSNorm(dim), MLP(dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """One block."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Transformer(nn.Module):
    """The blocks, under the name that published weights have them by."""

    def __init__(self, config: GSReconConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config.dim, config.num_heads) for _ in range(config.num_blocks))


class GSRecon(nn.Module):
    """Four views to four grids of Gaussians."""

    def __init__(self, config: GSReconConfig) -> None:
        super().__init__()
        self.config = config
        area = config.patch_size**2
        self.x_embedder = nn.Linear((IMAGE_CHANNELS + 6) * area, config.dim)
        self.transformer = _Transformer(config)
        self.ln_out = nn.LayerNorm(config.dim)
        self.out_depth = nn.Linear(config.dim, CHANNELS["depth"] * area, bias=False)
        self.out_rgb = nn.Linear(config.dim, CHANNELS["rgb"] * area, bias=False)
        self.out_scale = nn.Linear(config.dim, CHANNELS["scale"] * area, bias=False)
        self.out_rotation = nn.Linear(config.dim, CHANNELS["rotation"] * area, bias=False)
        self.out_opacity = nn.Linear(config.dim, CHANNELS["opacity"] * area, bias=False)
        self.initialize()

    def initialize(self) -> None:
        """Draw the weights as for a new training: depth, scale and opacity begin at 0 everywhere."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for head in (self.out_depth, self.out_scale, self.out_opacity):
            nn.init.zeros_(head.weight)

    def patches(
        self,
        images: Float[Tensor, "b v c=9 h w"],
        T_world_cam: Float[Tensor, "b v 4 4"],
        fxfycxcy: Float[Tensor, "b v 4"],
    ) -> Float[Tensor, "bv n p"]:
        """What the patches of each view hold, before they become tokens."""
        height, width = images.shape[-2:]
        rays = plucker_rays(height, width, T_world_cam, fxfycxcy)
        p = self.config.patch_size
        return rearrange(
            torch.cat([images * 2 - 1, rays], dim=2),
            "b v c (h p1) (w p2) -> (b v) (h w) (p1 p2 c)",
            p1=p,
            p2=p,
        )

    def forward(
        self,
        images: Float[Tensor, "b v c=9 h w"],
        T_world_cam: Float[Tensor, "b v 4 4"],
        fxfycxcy: Float[Tensor, "b v 4"],
    ) -> SplatGrids:
        """Predict the grids.

        Args:
            images: Color over white, normals (in view 0's frame) and coordinates as colors, in [0, 1].
            T_world_cam: OpenCV cameras, view 0 at its canonical distance.
            fxfycxcy: Intrinsics as shares of the image.
        """
        num_views, height = images.shape[1], images.shape[3]
        patches = self.patches(images, T_world_cam, fxfycxcy)
        x = self.encoded(rearrange(patches, "(b v) n p -> b (v n) p", v=num_views))
        p = self.config.patch_size
        channels = rearrange(
            self.predicted(x), "b (v h w) (p1 p2) c -> b v c (h p1) (w p2)", v=num_views, h=height // p, p1=p, p2=p
        )
        return SplatGrids.from_channels(channels)

    def encoded(self, patches: Float[Tensor, "b n p"]) -> Float[Tensor, "b n d"]:
        """Patches of an object, of any number and order, as tokens that have seen each other."""
        x = self.x_embedder(patches.to(self.x_embedder.weight.dtype))
        for block in self.transformer.blocks:
            x = block(x)
        return self.ln_out(x)

    def predicted(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n a c=12"]:
        """The twelve channels of every pixel of every token's patch."""

        def pixels(head: nn.Linear) -> Tensor:
            return head(x).unflatten(-1, (self.config.patch_size**2, -1))

        return torch.cat(
            [
                2 * torch.sigmoid(pixels(self.out_rgb)) - 1,
                2 * torch.sigmoid(pixels(self.out_scale)) - 1,
                functional.normalize(pixels(self.out_rotation), dim=-1),
                2 * torch.sigmoid(pixels(self.out_opacity) - 2) - 1,
                2 * torch.sigmoid(pixels(self.out_depth)) - 1,
            ],
            dim=-1,
        )
