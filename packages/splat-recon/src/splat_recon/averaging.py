"""The mean of the Gaussians over the last steps of a training, which moves less from seed to seed than the last one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from splat_recon.config import TrainConfig
from splat_recon.optim import GaussianOptimizer
from splat_render.gaussians import Gaussians

AVERAGE_EVERY = 5
"""Steps between two Gaussians that the mean takes in: neighbors are nearly the same."""


class GaussianAverage:
    """A running mean of raw parameters over the steps that `TrainConfig.average_last` names, after density control."""

    def __init__(self, config: TrainConfig) -> None:
        first = round((1 - config.average_last) * config.max_steps)
        self._begin = max(first, config.strategy.refine_stop) if config.average_last else config.max_steps
        self._max_steps = config.max_steps
        self.num_averaged = 0
        self._sums: dict[str, Tensor] = {}

    def after_step(self, optimizer: GaussianOptimizer, step: int) -> None:
        """Take in the Gaussians when `step` steps are done; at the run's end they become their mean."""
        if not self._begin < step <= self._max_steps:
            return
        if (self._max_steps - step) % AVERAGE_EVERY == 0:
            self.update(optimizer.gaussians)
        if step == self._max_steps and (mean := self.mean()) is not None:
            optimizer.assign(mean)

    def update(self, gaussians: Gaussians) -> None:
        """Take in the Gaussians of a step.

        Quaternions are made of length 1 with a positive real part first, so that two that mean one rotation agree.
        """
        values = {name: tensor.detach().to(torch.float64) for name, tensor in gaussians.parameters().items()}
        quats = torch.nn.functional.normalize(values["quats_wxyz"], dim=-1)
        values["quats_wxyz"] = torch.where(quats[:, :1] < 0, -quats, quats)
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if self.num_averaged else value
        self.num_averaged += 1

    def mean(self) -> Gaussians | None:
        """The mean so far; None where nothing was taken in."""
        if not self.num_averaged:
            return None
        return Gaussians(**{name: (total / self.num_averaged).to(torch.float32) for name, total in self._sums.items()})

    def tensors(self) -> dict[str, Tensor]:
        """Everything, for a checkpoint; nothing where nothing was taken in."""
        if not self.num_averaged:
            return {}
        return {"num": torch.tensor(self.num_averaged)} | {f"sum.{name}": total for name, total in self._sums.items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave; from nothing where a checkpoint has none."""
        self.num_averaged = int(tensors["num"]) if "num" in tensors else 0
        self._sums = {name.removeprefix("sum."): value for name, value in tensors.items() if name.startswith("sum.")}
