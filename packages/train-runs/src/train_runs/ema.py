"""The exponential moving average of a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from train_runs.config import EmaWarmup


def _power(update: int) -> float:
    return 1 - update**-0.75 if update > 1 else 0.0


WARMUPS: dict[EmaWarmup, Callable[[int], float]] = {
    "constant": lambda update: 1.0,
    "ratio": lambda update: (1 + update) / (10 + update),
    "ratio_from_zero": lambda update: (update - 1) / (update + 9),
    "power": _power,
}
"""The largest decay at update n = 1, 2, ...: small at first, so that the start is forgotten. `ratio` is TensorFlow's
and diffusers' default, `power` diffusers' other one; `ratio_from_zero` and `power` begin with the parameters after the
first step."""


class Ema:
    """Exponential moving average of named parameters.

    Args:
        decay: Final decay, in [0, 1).
        warmup: The largest decay at update n, counted from 1.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], decay: float, warmup: Callable[[int], float] = WARMUPS["ratio"]
    ) -> None:
        self.decay = decay
        self.warmup = warmup
        self.averages: dict[str, Tensor] = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], update: int) -> None:
        """Take in the parameters after optimizer step ``update``, counted from 1."""
        decay = min(self.decay, self.warmup(update))
        for name, parameter in parameters.items():
            self.averages[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def swap(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Exchange averages and parameters; a second call undoes the first."""
        for name, parameter in parameters.items():
            average = self.averages[name]
            self.averages[name] = parameter.detach().clone()
            parameter.copy_(average)
