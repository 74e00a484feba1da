"""Where a run's curves and pictures go besides its own folder: TensorBoard and Weights & Biases, both optional."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from output_files import write_text_whole
from train_runs.errors import InputError

TrackerName = Literal["tensorboard", "wandb"]
"""Where curves can go besides metrics.jsonl."""

TENSORBOARD_FOLDER = "tensorboard"


@runtime_checkable
class Tracker(Protocol):
    """Takes numbers and pictures as they come."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by name."""
        ...

    def picture(self, name: str, rgb: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Take a picture."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...


def open_trackers(
    names: Sequence[TrackerName], folder: Path, *, project: str, settings: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers of a run.

    Args:
        folder: The run folder; TensorBoard's files go into `tensorboard` there, W&B's into `wandb`.
        project: W&B's project; the folder's name is the run's.

    Raises:
        InputError: A tracker's package is not installed.
    """
    makers = {"tensorboard": lambda: TensorBoard(folder), "wandb": lambda: _WandB(folder, project, settings)}
    return [makers[name]() for name in dict.fromkeys(names)]


class TensorBoard:
    """Event files in the folder `tensorboard` of a run; `tensorboard --logdir RUN` shows them.

    Args:
        step: Where the run goes on: TensorBoard leaves out what an earlier part of it wrote beyond this step.

    Raises:
        InputError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise InputError(
                "TensorBoard is not installed: run the command with `uv run --extra tensorboard`, or install the extra "
                "train-runs[tensorboard]"
            ) from error
        try:
            self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step or None, flush_secs=10)
        except OSError as error:
            raise InputError(f"cannot write to {folder / TENSORBOARD_FOLDER}: {error}") from error

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, rgb: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Take a picture."""
        self._writer.add_image(name, rgb, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


class _WandB:
    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError("Weights & Biases is not installed: install the extra train-runs[wandb]") from error
        self._wandb = wandb
        # The same id for a continued run; W&B drops what was logged after the step that it continues from.
        self._run = wandb.init(
            project=project,
            name=folder.name,
            id=_wandb_id(folder),
            dir=str(folder),
            resume="allow",
            config=dict(settings),
        )

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, rgb: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        self._run.log({name: self._wandb.Image(rgb)}, step=step)

    def close(self) -> None:
        self._run.finish()


def _wandb_id(folder: Path) -> str:
    path = folder / "wandb_id.txt"
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    name = uuid.uuid4().hex[:8]
    write_text_whole(path, name + "\n")
    return name
