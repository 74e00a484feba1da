"""What a model brings to be trained: parameter groups, batches, losses and its own state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from train_runs.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ParameterGroup:
    """Parameters that are trained alike."""

    parameters: Mapping[str, nn.Parameter]
    """By name; a name belongs to one group only."""

    config: OptimizerConfig
    """How they are trained. Groups of one optimizer agree in `algorithm` and `max_grad_norm`."""

    name: str = "main"
    """Of the group."""

    optimizer: str = "main"
    """Groups with the same name here share an optimizer, which means: one gradient norm for clipping."""

    learning_rate: Callable[[int], float] | None = None
    """Learning rate of the optimizer step that follows so many finished ones, instead of the config's schedule."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TaskState:
    """What a task needs to go on, besides the parameters of its groups."""

    values: dict[str, Any] = field(default_factory=dict)
    """What JSON can hold exactly."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """For example buffers and generators' states."""


@runtime_checkable
class Task(Protocol):
    """Something that can be trained; :class:`train_runs.loop.Loop` does the rest.

    Of several processes each has its own task, and all methods are called in every process.
    """

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """What is trained, asked for once."""
        ...

    def next_batch(self) -> Any:
        """What :meth:`losses` takes. Where it has an attribute `ids`, names of its samples, errors name them."""
        ...

    def losses(self, batch: Any, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The weighted terms whose sum is minimized, each a scalar, by name.

        Args:
            batch: From :meth:`next_batch`.
            step: Finished optimizer steps.
            generator: A generator on the CPU that checkpoints hold. The global generators are seeded for each step, so
                that dropout needs no care.
        """
        ...

    def state(self) -> TaskState:
        """Everything that the next batches and losses depend on, except the parameters of the groups."""
        ...

    def load_state(self, state: TaskState) -> None:
        """Put back what :meth:`state` gave.

        Raises:
            ValueError: It does not fit this task.
        """
        ...


@runtime_checkable
class ModelTask(Task, Protocol):
    """A task that writes its model in a form for use, into `model/` of checkpoints and of the finished run.

    The model holds all parameters of the groups, so that checkpoints need not hold them a second time.
    """

    def model_writer(self) -> Callable[[Path], None]:
        """Gather the model as it is now, and return what writes it into an empty folder.

        Every process calls this; only the main one calls what it returns, at once.
        """
        ...

    def read_model(self, folder: Path) -> None:
        """Put the model that was written into ``folder`` in the place of the present one, in every process."""
        ...
