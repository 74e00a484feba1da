"""What is recorded of a training: means over the steps since the last record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What happened in the steps since the previous record."""

    step: int
    """Finished optimizer steps."""

    loss: float
    """Mean total loss."""

    terms: dict[str, float]
    """Mean of each weighted loss term over the steps in which it was active."""

    grad_norm: float
    """Mean gradient norm before clipping, over all optimizers."""

    learning_rate: float
    """Learning rate of the first parameter group at the last step."""


@dataclass(slots=True)
class RunningMeans:
    """Sums up the values of steps until they are recorded."""

    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Sum and number of values by name."""

    def add(self, values: Mapping[str, float]) -> None:
        """Take in the values of a step: `loss`, `grad_norm`, and the loss terms that were active."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def record(self, *, step: int, learning_rate: float) -> StepRecord:
        """Return the means, and begin again from nothing."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        loss, grad_norm = means.pop("loss"), means.pop("grad_norm")
        return StepRecord(step=step, loss=loss, terms=means, grad_norm=grad_norm, learning_rate=learning_rate)
