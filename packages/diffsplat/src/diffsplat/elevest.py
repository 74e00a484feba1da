"""ElevEst: from which height an image was taken, by a DINOv2 network with registers and two heads."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.config import ElevEstConfig

INPUT_SIZE = 224
"""Side of the images that the network looks at."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LARGEST_OFFSET_DEG = 2.0


class _LayerScale(nn.Module):
    """A weight per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh."""
        return x * self.gamma


class _Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Attend."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    """Two layers with GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Per token."""
        return self.fc2(functional.gelu(self.fc1(x)))


class _Block(nn.Module):
    """A block of the transformer."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim, eps=1e-6), _Attention(dim, num_heads), _LayerScale(dim)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(dim, eps=1e-6), _Mlp(dim), _LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _PatchEmbed(nn.Module):
    """Patches to tokens."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """Row after row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Dinov2WithRegisters(nn.Module):
    """The backbone, with the parameter names of its authors' release."""

    def __init__(self, config: ElevEstConfig) -> None:
        super().__init__()
        dim, side = config.embed_dim, config.pretrained_size // config.patch_size
        self.side = side
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_registers, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        self.patch_embed = _PatchEmbed(dim, config.patch_size)
        self.blocks = nn.ModuleList(_Block(dim, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def _positions(self, side: int) -> Float[Tensor, "1 n d"]:
        """Position embedding of a square grid of patches: the trained one, resized with antialiasing."""
        own = self.pos_embed[:, 1:]
        if side == self.side:
            return own
        grid = own.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
        return grid.flatten(2).transpose(1, 2)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """The class token after all blocks."""
        tokens = self.patch_embed(images)
        side = round(tokens.shape[1] ** 0.5)
        tokens = tokens + self._positions(side)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)
        registers = self.register_tokens.expand(len(images), -1, -1)
        x = torch.cat([first, registers, tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class ElevEst(nn.Module):
    """Elevation bins and an offset within them."""

    lower_bounds: Tensor

    def __init__(self, config: ElevEstConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Dinov2WithRegisters(config)
        dim = config.embed_dim
        self.cls_head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, config.num_bins))
        self.offset_head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))
        bounds = config.lowest_deg + config.interval_deg * torch.arange(config.num_bins)
        self.register_buffer("lower_bounds", bounds.float())

    @staticmethod
    def prepared(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Images in [0, 1] at the network's size, normalized."""
        return normalized(resized(images))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c"], Float[Tensor, " b"]]:
        """Scores of the bins and offsets in degrees, of images in [0, 1]."""
        features = self.backbone(self.prepared(images))
        return self.cls_head(features), self.offset_head(features)[:, 0].clamp(0, LARGEST_OFFSET_DEG)

    @torch.no_grad()
    def elevations_deg(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Elevations in degrees in the released sign: negative is above the horizon."""
        scores, offsets = self(images)
        return self.lower_bounds[scores.argmax(dim=-1)] + offsets

    def losses(
        self, images: Float[Tensor, "b 3 h w"], elevations_deg: Float[Tensor, " b"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Cross entropy of the bins and squared error of the offsets."""
        scores, offsets = self(images)
        lowest, width = self.config.lowest_deg, self.config.interval_deg
        bins = ((elevations_deg - lowest) / width).floor().long().clamp(0, self.config.num_bins - 1)
        wanted = elevations_deg - self.lower_bounds[bins]
        return {"bin": functional.cross_entropy(scores, bins), "offset": functional.mse_loss(offsets, wanted)}


def resized(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
    """Images at the network's size, bilinearly with antialiasing."""
    return functional.interpolate(
        images, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False, antialias=True
    )


def normalized(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images in [0, 1] with ImageNet's mean and deviation taken out."""
    mean, std = images.new_tensor(MEAN)[:, None, None], images.new_tensor(STD)[:, None, None]
    return (images - mean) / std
