"""Low-rank adapters with the parameter names of the published weights, and their merging into plain layers."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

ADAPTER = "vae_skip"
"""Name of the decoder's adapter in the published weights; part of every parameter name."""

UNET_ADAPTER = "unet"
"""Name of the UNet's adapter."""


class LoraLayer(nn.Module):
    """A frozen-or-not base layer plus a trainable low-rank update: base(x) + scaling * B(A(x)).

    The parameters are called `base_layer.weight`, `lora_A.<adapter>.weight` and `lora_B.<adapter>.weight`, as PEFT
    names them, so published weights load as they are.
    """

    def __init__(self, base_layer: nn.Conv2d | nn.Linear, *, rank: int, alpha: float, adapter: str = ADAPTER) -> None:
        super().__init__()
        self.adapter = adapter
        self.base_layer = base_layer
        self.scaling = alpha / rank
        if isinstance(base_layer, nn.Conv2d):
            down: nn.Module = nn.Conv2d(
                base_layer.in_channels,
                rank,
                base_layer.kernel_size,  # type: ignore[arg-type]
                base_layer.stride,  # type: ignore[arg-type]
                base_layer.padding,  # type: ignore[arg-type]
                bias=False,
            )
            up: nn.Module = nn.Conv2d(rank, base_layer.out_channels, 1, bias=False)
        else:
            down = nn.Linear(base_layer.in_features, rank, bias=False)
            up = nn.Linear(rank, base_layer.out_features, bias=False)
        nn.init.normal_(down.weight, std=1.0 / rank)
        nn.init.zeros_(up.weight)
        self.lora_A = nn.ModuleDict({adapter: down})
        self.lora_B = nn.ModuleDict({adapter: up})

    @property
    def down(self) -> nn.Conv2d | nn.Linear:
        """The layer to the low rank."""
        return cast("nn.Conv2d | nn.Linear", self.lora_A[self.adapter])

    @property
    def up(self) -> nn.Conv2d | nn.Linear:
        """The layer from the low rank."""
        return cast("nn.Conv2d | nn.Linear", self.lora_B[self.adapter])

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply the base layer and the update."""
        return self.base_layer(x) + self.scaling * self.up(self.down(x))

    def merged(self) -> nn.Conv2d | nn.Linear:
        """Return the base layer with the update added to its weight (the base layer itself is changed)."""
        with torch.no_grad():
            weight = self.base_layer.weight
            precise = torch.promote_types(weight.dtype, torch.float32)
            update = self.up.weight.flatten(1).to(precise) @ self.down.weight.flatten(1).to(precise)
            weight += (self.scaling * update.reshape(weight.shape)).to(weight.dtype)
        return self.base_layer


def add_lora(root: nn.Module, targets: list[str], *, rank: int, alpha: float, adapter: str = ADAPTER) -> None:
    """Wrap the named layers of a module, in place.

    Args:
        root: The module that the names are relative to.
        targets: Names of convolutions and linear layers.
        alpha: Updates are scaled by alpha / rank.
    """
    for name in targets:
        parent, child = _parent_of(root, name)
        setattr(parent, child, LoraLayer(getattr(parent, child), rank=rank, alpha=alpha, adapter=adapter))


def merge_lora(root: nn.Module) -> None:
    """Replace every wrapped layer by a plain one with the same effect, in place."""
    wrapped = [(name, module) for name, module in root.named_modules() if isinstance(module, LoraLayer)]
    for name, module in wrapped:
        parent, child = _parent_of(root, name)
        setattr(parent, child, module.merged())


def add_base_layer_names(state: Mapping[str, Tensor], targets: Iterable[str]) -> dict[str, Tensor]:
    """Rename the parameters of plain layers to what they are called once the layers are wrapped.

    Args:
        state: Parameters of a module without adapters.
    """
    wrapped = set(targets)

    def renamed(name: str) -> str:
        layer, _, parameter = name.rpartition(".")
        return f"{layer}.base_layer.{parameter}" if layer in wrapped else name

    return {renamed(name): value for name, value in state.items()}


def _parent_of(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, child = name.rpartition(".")
    return root.get_submodule(parent), child
