"""Configuration of the loop and of its optimizers. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from output_files import check_range

EmaWarmup = Literal["constant", "ratio", "ratio_from_zero", "power"]
"""Names in :data:`train_runs.ema.WARMUPS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """One optimizer and its learning-rate schedule."""

    algorithm: Literal["adamw", "adam"] = "adamw"
    """`adamw` decays weights apart from the gradient; `adam` adds the decay to it."""

    learning_rate: float = 1e-4
    """Peak learning rate."""

    schedule: Literal["constant", "cosine", "step"] = "constant"
    """Learning rate after the warm-up: `constant`, `cosine` decay to `final_lr_fraction` at the last step, or
    multiplied by `decay_factor` every `decay_every` steps."""

    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly from 0."""

    final_lr_fraction: float = 0.0
    """Learning rate at the last step of the cosine schedule, as a fraction of the peak."""

    decay_every: int = 50_000
    """Steps between two decays of the step schedule, the warm-up included."""

    decay_factor: float = 0.5
    """What the step schedule multiplies the learning rate by."""

    beta1: float = 0.9
    """Decay of the first moment."""

    beta2: float = 0.999
    """Decay of the second moment."""

    weight_decay: float = 1e-2
    """Weight decay."""

    eps: float = 1e-8
    """Added to the denominator."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this total norm over the optimizer's parameters; 0 leaves them."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "learning_rate", "eps", "decay_every")
        check_range(self, "0 or more", "warmup_steps", "weight_decay", "max_grad_norm")
        check_range(self, "in [0, 1]", "beta1", "beta2", "final_lr_fraction", "decay_factor")

    def learning_rate_at(self, step: int, max_steps: int) -> float:
        """Learning rate of the optimizer step that follows ``step`` finished ones, in a run of ``max_steps``."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "step":
            return self.learning_rate * self.decay_factor ** (step // self.decay_every)
        progress = min(1.0, (step - self.warmup_steps) / max(1, max_steps - self.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_lr_fraction + (1 - self.final_lr_fraction) * cosine)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How a run proceeds. A trainer's own configuration may inherit from it, or nest it."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("max_steps", "log_every", "checkpoint_every", "keep_checkpoints")
    """Fields that may differ when a run is continued: they do not touch the steps themselves (`max_steps` only through
    a schedule). Any nested dataclass may have such a list."""

    max_steps: int = 10_000
    """Optimizer steps of the whole run."""

    gradient_accumulation: int = 1
    """Forward passes whose gradients are averaged into one optimizer step."""

    seed: int = 0
    """Seed of everything random."""

    ema_decay: float = 0.0
    """Decay of an exponential moving average of the trained parameters, which then is what models for use hold; 0 keeps
    none."""

    ema_warmup: EmaWarmup = "ratio"
    """How the decay grows at the beginning, at update n: `constant` does not, `ratio` is at most (1+n)/(10+n),
    `ratio_from_zero` (n-1)/(n+9), `power` 1 - n^-0.75."""

    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""

    checkpoint_every: int = 500
    """Steps between checkpoints; the last step is always saved."""

    keep_checkpoints: int = 2
    """Number of latest checkpoints kept in the run folder."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "max_steps", "gradient_accumulation", "log_every")
        check_range(self, "positive", "checkpoint_every", "keep_checkpoints")
        check_range(self, "0 or more", "seed")
        check_range(self, "in [0, 1)", "ema_decay")


def config_values(config: Any) -> dict[str, Any]:
    """A configuration dataclass as JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def fixed_values(config: Any) -> dict[str, Any]:
    """The fields that must not differ when a run is continued, as JSON values under dotted names."""
    fixed: dict[str, Any] = {}
    may_change = config.MAY_CHANGE if hasattr(config, "MAY_CHANGE") else ()
    for field in dataclasses.fields(config):
        if field.name in may_change:
            continue
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            fixed |= {f"{field.name}.{name}": inner for name, inner in fixed_values(value).items()}
        else:
            fixed[field.name] = json.loads(json.dumps(value, default=str))
    return fixed


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two flat sets of values, in a sentence each."""
    return [
        f"{name} was {before.get(name)}, now {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
