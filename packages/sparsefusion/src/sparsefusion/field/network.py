"""Density and color of the field: the grid, a small network, and a blob of density to start from."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsefusion.config import FieldConfig
from sparsefusion.field.grid import TiledGrid

MAX_EXPONENT = 15.0
"""Gradients of densities are computed as if exponents were within this range."""


class _BoundedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * x.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()


class FieldNetwork(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, widths: list[int], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.net = nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            layer: Any = torch.nn.utils.skip_init(nn.Linear, inputs, outputs)
            # torch's own initialization, drawn from the given generator.
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            reach = 1 / math.sqrt(inputs)
            nn.init.uniform_(layer.bias, -reach, reach, generator=generator)
            self.net.append(layer)

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Apply the layers."""
        for layer in self.net[:-1]:
            x = torch.relu(layer(x))
        return self.net[-1](x)


class Field(nn.Module):
    """Density and color everywhere in a cube; color does not depend on the direction.

    Args:
        generator: What the start is drawn from; by default torch's own random state.
    """

    aabb_train: Tensor
    aabb_infer: Tensor

    def __init__(self, config: FieldConfig | None = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config = config or FieldConfig()
        box = torch.tensor([-config.bound] * 3 + [config.bound] * 3)
        self.register_buffer("aabb_train", box)
        self.register_buffer("aabb_infer", box.clone())
        self.encoder = TiledGrid(config, generator=generator)
        features = config.num_levels * config.level_channels
        self.sigma_net = FieldNetwork([features, config.hidden, config.hidden, 4], generator)

    def forward(self, positions: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Densities, per scene unit, and colors in [0, 1]."""
        out = self.sigma_net(self.encoder(positions))
        config = self.config
        blob = config.blob_density * torch.exp(-positions.square().sum(dim=-1) / (2 * config.blob_radius**2))
        return _BoundedExp.apply(out[:, 0] + blob), torch.sigmoid(out[:, 1:])  # type: ignore[return-value]
