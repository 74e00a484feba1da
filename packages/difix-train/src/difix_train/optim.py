"""AdamW, its learning-rate schedule as a pure function of the step, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from difix_train.config import OptimizerConfig
from difix_train.processes import placed_like, whole


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over ``parameters`` in one group, in the mapping's order."""
    return torch.optim.AdamW(
        list(parameters.values()),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        eps=config.eps,
    )


def learning_rate_at(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Learning rate of the optimizer step that follows ``step`` finished ones."""
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return rate
    done = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return rate * (config.final_lr_fraction + (1 - config.final_lr_fraction) * cosine)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """AdamW's state as named tensors: `<name of the parameter>/<name of the moment>`; every process must ask."""
    tensors = {}
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = whole(value.detach()).cpu().contiguous()
    return tensors


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` took; a parameter without an entry starts without state."""
    for name, parameter in zip(names, optimizer.param_groups[0]["params"], strict=True):
        prefix = f"{name}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            # AdamW keeps its step counter on the CPU.
            optimizer.state[parameter] = {
                key: value.clone() if key == "step" else placed_like(value, parameter) for key, value in state.items()
            }


class WeightAverage:
    """Exponential moving average of named parameters, in float32.

    Early steps are averaged with a smaller decay, (1 + step) / (10 + step), so that the start is forgotten.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.averages = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Take in the parameters after ``step`` optimizer steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in parameters.items():
            self.averages[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def exchange(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Swap averages and parameters; a second call undoes the first."""
        for name, parameter in parameters.items():
            average = self.averages[name]
            self.averages[name] = parameter.detach().clone()
            parameter.copy_(average)
