"""Checkpoints of a training run, written by train-runs: safetensors and JSON with checksums, complete or not at all.

Whenever the power goes, a valid checkpoint is there, at worst under a hidden name, where `newest_checkpoint` finds it
too. See `train_runs.checkpoints` for the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import train_runs
from splat_recon.config import TrainConfig
from splat_recon.errors import InputError
from splat_render.gaussians import Gaussians
from train_runs import checkpoints

GAUSSIANS_PREFIX = "gaussians."
"""Prefix of the raw parameters among the tensors."""


@contextmanager
def _as_input_error() -> Iterator[None]:
    try:
        yield
    except train_runs.InputError as error:
        raise InputError(str(error)) from error


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
        """Write a checkpoint; see `write_checkpoint`."""
        write_checkpoint(folder, self.values, self.tensors)

    @classmethod
    def read(cls, folder: Path) -> TrainerState:
        """Of a checkpoint; see `read_checkpoint`."""
        values, tensors = read_checkpoint(folder)
        return cls(values=values, tensors=tensors, source=str(folder))


def write_checkpoint(folder: Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; one that is already there is replaced only when the new one is complete.

    Args:
        folder: The checkpoint's own folder, for example `checkpoints/step_003000`.
        state: Values that JSON can hold exactly.
        tensors: By name; brought to the CPU.

    Raises:
        InputError: The folder cannot be written.
    """
    with _as_input_error():
        checkpoints.write_checkpoint(Path(folder), state, tensors)


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State and tensors (on the CPU) of a checkpoint.

    Raises:
        InputError: There is no valid checkpoint of this format.
    """
    with _as_input_error():
        found = checkpoints.read_checkpoint(Path(folder))
    return found.values, found.tensors


def newest_checkpoint(folder: Path) -> Path | None:
    """The valid checkpoint of the highest step in a folder of checkpoints; damaged ones are skipped with a warning.

    It may have a hidden name where a writer was killed, or is at work; `recovered_checkpoint` puts that right.
    """
    return checkpoints.latest_valid(Path(folder))


def recovered_checkpoint(folder: Path) -> Path | None:
    """`newest_checkpoint` for the one process that is going to write: under its own name, and leftovers are removed.

    Damaged checkpoints of higher steps are renamed to `damaged_step_NNNNNN`.

    Raises:
        InputError: The folder cannot be written.
    """
    with _as_input_error():
        return checkpoints.recover(Path(folder))


def remove_older_checkpoints(newest: Path, keep: int) -> None:
    """Remove the checkpoints of lower steps beside one, but for some; those of higher steps are left alone.

    Args:
        keep: How many to keep, this one included; at least one.

    Raises:
        InputError: One cannot be removed.
    """
    with _as_input_error():
        checkpoints.remove_older(Path(newest), keep)


def config_from_state(state: Mapping[str, Any], folder: Path | str) -> TrainConfig:
    """The training settings among a checkpoint's state.

    Raises:
        InputError: They are of another version.
    """
    try:
        return TrainConfig.from_dict(state["config"])
    except (KeyError, ValueError) as error:
        raise InputError(f"checkpoint {folder} is of another version: {error}; train again") from error


def gaussians_from_tensors(tensors: Mapping[str, Tensor]) -> Gaussians:
    """The Gaussians among a checkpoint's tensors.

    Raises:
        InputError: A field is missing or misshapen.
    """
    fields = {
        name.removeprefix(GAUSSIANS_PREFIX): t for name, t in tensors.items() if name.startswith(GAUSSIANS_PREFIX)
    }
    try:
        return Gaussians(**fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"the checkpoint does not hold Gaussians: {error}") from error
