"""What the checkpoints of a training hold; `train_runs.checkpoints` writes, finds and removes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from splat_recon.config import TrainConfig
from splat_recon.errors import InputError
from splat_render.gaussians import Gaussians
from train_runs.checkpoints import latest_valid as latest_valid
from train_runs.checkpoints import read_checkpoint as read_checkpoint
from train_runs.checkpoints import recover as recover
from train_runs.checkpoints import remove_older as remove_older
from train_runs.checkpoints import under, write_checkpoint

GAUSSIANS_PREFIX = "gaussians."
"""Prefix of the raw parameters among the tensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainerState:
    """Everything that going on with a training needs."""

    values: Mapping[str, Any]
    """What JSON can hold exactly."""

    tensors: Mapping[str, Tensor]
    """By name."""

    source: str = "in memory"
    """Where it comes from, for messages."""

    def copied(self) -> TrainerState:
        """A copy on the CPU, which the training no longer changes."""
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors.items()}
        return TrainerState(values=self.values, tensors=tensors, source=self.source)

    def write(self, folder: Path) -> None:
        """Write a checkpoint."""
        write_checkpoint(folder, self.values, self.tensors)

    @classmethod
    def read(cls, folder: Path) -> TrainerState:
        """Read a checkpoint."""
        found = read_checkpoint(folder)
        return cls(values=found.values, tensors=found.tensors, source=str(folder))


def config_from_state(state: Mapping[str, Any], folder: Path | str) -> TrainConfig:
    """The training settings among a checkpoint's state."""
    try:
        return TrainConfig.from_dict(state["config"])
    except (KeyError, ValueError) as error:
        raise InputError(f"checkpoint {folder} is of another version: {error}; train again") from error


def gaussians_from_tensors(tensors: Mapping[str, Tensor]) -> Gaussians:
    """The Gaussians among a checkpoint's tensors."""
    try:
        return Gaussians(**under(GAUSSIANS_PREFIX, tensors))
    except (TypeError, ValueError) as error:
        raise InputError(f"the checkpoint does not hold Gaussians: {error}") from error
