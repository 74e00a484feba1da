"""A multi-resolution grid of features (Instant-NGP, Müller et al. 2022) whose fine levels tile instead of hashing.

Plain torch: positions are data, so only the table gets gradients, and these are added up level by level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsefusion.config import FieldConfig

TABLE_ALIGNMENT = 8
"""Tables of levels have a multiple of this many rows."""

INITIAL_RANGE = 1e-4
"""Features start uniformly in this range around zero."""


@dataclass(frozen=True)
class GridLevel:
    """One level: how a position is scaled, and where its rows stand in the table."""

    scale: float
    """Cells per unit of normalized position, as the published kernel rounds it."""

    resolution: int
    """Corners per side, less one."""

    offset: int
    """First row of the level."""

    num_rows: int
    """Rows of the level; corners wrap around where there are more of them."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Rows between neighbors along each axis; axes beyond the table's size get none."""
        strides, stride = [], 1
        for _ in range(3):
            strides.append(stride if stride <= self.num_rows else 0)
            stride *= self.resolution + 1
        return tuple(strides)


def grid_levels(config: FieldConfig) -> list[GridLevel]:
    """The levels of a grid, from coarse to fine."""
    finest = config.finest_per_bound * config.bound
    growth = math.log2(finest / config.base_resolution) / max(config.num_levels - 1, 1)
    levels, offset = [], 0
    for level in range(config.num_levels):
        nominal = math.ceil(config.base_resolution * (2**growth) ** level)
        rows = min(2**config.log2_table_size, (nominal + 1) ** 3)
        rows = math.ceil(rows / TABLE_ALIGNMENT) * TABLE_ALIGNMENT
        # Single precision, as in the published kernel: the finest levels depend on it.
        exponent = torch.tensor(level, dtype=torch.float32) * torch.tensor(growth, dtype=torch.float32)
        scale = (torch.exp2(exponent) * config.base_resolution - 1).item()
        levels.append(GridLevel(scale, math.ceil(scale) + 1, offset, rows))
        offset += rows
    return levels


def _corners(level: GridLevel, positions: Float[Tensor, "n 3"]) -> tuple[Int[Tensor, "8 n"], Float[Tensor, "8 n"]]:
    """Rows of the eight corners around positions in [0, 1], and their trilinear weights."""
    scaled = positions * level.scale + 0.5
    cell = scaled.floor()
    inside = scaled - cell
    cell = cell.long()
    rows, weights = [], []
    axes = [
        [(cell[:, axis] * stride, 1 - inside[:, axis]), ((cell[:, axis] + 1) * stride, inside[:, axis])]
        for axis, stride in enumerate(level.strides)
    ]
    for (x, wx), (y, wy), (z, wz) in product(*axes):
        rows.append((x + y + z) % level.num_rows + level.offset)
        weights.append(wx * wy * wz)
    return torch.stack(rows), torch.stack(weights)


class _Interpolate(torch.autograd.Function):
    """Features at positions; the table's gradient is added up without keeping any corner."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, positions: Tensor, levels: list[GridLevel]) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.levels, ctx.shape = levels, table.shape
        channels = table.shape[1]
        out = table.new_empty(len(positions), len(levels) * channels)
        for at, level in enumerate(levels):
            rows, weights = _corners(level, positions)
            features = table.index_select(0, rows.flatten()).view(*rows.shape, channels)
            out[:, at * channels : (at + 1) * channels] = (features * weights[..., None]).sum(dim=0)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (positions,) = ctx.saved_tensors
        (grad,) = grads
        table_grad = grad.new_zeros(ctx.shape)
        channels = ctx.shape[1]
        for at, level in enumerate(ctx.levels):
            rows, weights = _corners(level, positions)
            part = grad[:, at * channels : (at + 1) * channels]
            table_grad.index_add_(0, rows.flatten(), (weights[..., None] * part).flatten(0, 1))
        return table_grad, None, None


class TiledGrid(nn.Module):
    """Features of positions in a cube, trilinearly interpolated at every level and put side by side.

    Attributes:
        embeddings: The table of all levels, one row per corner.
        offsets: First row of every level, and the number of rows.
    """

    embeddings: nn.Parameter
    offsets: Tensor

    def __init__(self, config: FieldConfig | None = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        config = config or FieldConfig()
        self.bound = config.bound
        self.levels = grid_levels(config)
        offsets = [level.offset for level in self.levels]
        offsets.append(self.levels[-1].offset + self.levels[-1].num_rows)
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int32))
        table = torch.empty(offsets[-1], config.level_channels)
        self.embeddings = nn.Parameter(table.uniform_(-INITIAL_RANGE, INITIAL_RANGE, generator=generator))

    def forward(self, positions: Float[Tensor, "n 3"]) -> Float[Tensor, "n c"]:
        """Features at positions of the scene; zero outside of the cube. Positions get no gradient."""
        unit = (positions + self.bound) / (2 * self.bound)
        outside = ((unit < 0) | (unit > 1)).any(dim=-1, keepdim=True)
        features = _Interpolate.apply(self.embeddings, unit.detach().clamp(0, 1), self.levels)
        return features.masked_fill(outside, 0.0)  # type: ignore[union-attr]
