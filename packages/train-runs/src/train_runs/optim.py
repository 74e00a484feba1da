"""Optimizers over parameter groups: how they are made, their learning rates, clipping, and their state by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from train_runs.processes import full_tensor, reshard_like
from train_runs.task import ParameterGroup

ALGORITHMS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


class Optimizers:
    """One or several optimizers that make their steps together; one whose parameters have no gradient makes none.

    Raises:
        ValueError: There is no parameter, a name is used twice, or groups of one optimizer do not agree.
    """

    def __init__(self, groups: Sequence[ParameterGroup], max_steps: int) -> None:
        self.groups = tuple(groups)
        self.max_steps = max_steps
        names = [name for group in self.groups for name in group.parameters]
        if not names:
            raise ValueError("no parameter is trained: the parameter groups are empty")
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"these parameters stand in two groups: {', '.join(twice)}")
        self.parameters = {name: value for group in self.groups for name, value in group.parameters.items()}
        self._groups = {
            key: [group for group in self.groups if group.optimizer == key]
            for key in dict.fromkeys(group.optimizer for group in self.groups)
        }
        self._optimizers = {key: _make(members) for key, members in self._groups.items()}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def set_learning_rates(self, step: int) -> float:
        """Set the learning rates for the step that follows ``step`` finished ones; returns that of the first group."""
        for key, optimizer in self._optimizers.items():
            for group, values in zip(self._groups[key], optimizer.param_groups, strict=True):
                values["lr"] = self._rate(group, step)
        return self._rate(self.groups[0], step)

    def clip_gradients(self) -> list[Tensor]:
        """Scale gradients down to each optimizer's `max_grad_norm`; returns the norms before, on their device.

        An optimizer without gradients has none.
        """
        norms = []
        for members in self._groups.values():
            parameters = [value for group in members for value in group.parameters.values() if value.grad is not None]
            if not parameters:
                continue
            limit = members[0].config.max_grad_norm or math.inf
            norms.append(full_tensor(torch.nn.utils.clip_grad_norm_(parameters, limit)))
        return norms

    def step(self) -> None:
        """Make the optimizer steps."""
        for optimizer in self._optimizers.values():
            optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """The optimizers' state: `<name of the parameter>/<name of the moment>`; every process must call."""
        tensors = {}
        for key, optimizer in self._optimizers.items():
            for group in self._groups[key]:
                for name, parameter in group.parameters.items():
                    for moment, value in optimizer.state.get(parameter, {}).items():
                        tensors[f"{name}/{moment}"] = full_tensor(value.detach()).cpu().contiguous()
        return tensors

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave; a parameter without an entry starts without state."""
        states: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            parameter, _, moment = name.rpartition("/")
            states.setdefault(parameter, {})[moment] = value
        for key, optimizer in self._optimizers.items():
            for group in self._groups[key]:
                for name, parameter in group.parameters.items():
                    if name in states:
                        # The counter of steps stays on the CPU, but for fused optimizers.
                        place = parameter.device if optimizer.defaults.get("fused") else torch.device("cpu")
                        optimizer.state[parameter] = {
                            moment: value.to(place, copy=True) if moment == "step" else reshard_like(value, parameter)
                            for moment, value in states[name].items()
                        }

    def _rate(self, group: ParameterGroup, step: int) -> float:
        if group.learning_rate is not None:
            return group.learning_rate(step)
        return group.config.learning_rate_at(step, self.max_steps)


def _make(groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    for name in ("algorithm", "max_grad_norm"):
        found = {getattr(group.config, name) for group in groups}
        if len(found) > 1:
            raise ValueError(f"parameter groups of one optimizer must have one {name}, got {sorted(found)}")
    settings = [
        {
            "params": list(group.parameters.values()),
            "lr": group.config.learning_rate,
            "betas": (group.config.beta1, group.config.beta2),
            "weight_decay": group.config.weight_decay,
            "eps": group.config.eps,
        }
        for group in groups
    ]
    # Fused, a step on a GPU takes no copy of the parameters. Shards are left to torch's usual way.
    parameters = [value for group in groups for value in group.parameters.values()]
    fused = all(value.device.type == "cuda" and not isinstance(value, DTensor) for value in parameters)
    return ALGORITHMS[groups[0].config.algorithm](settings, fused=True if fused else None)
