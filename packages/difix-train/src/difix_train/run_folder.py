"""The folder of a run: configuration, checkpoints, metrics. Imports no torch, so it can be checked at once."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from difix_train.errors import InputError

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
IMAGES = "images"
METRICS = "metrics.jsonl"
CONFIG = "config.json"
PREFIX = "step_"
DAMAGED = "damaged_"
"""What the name of a damaged checkpoint begins with after it was set aside."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run folder and what may be done to them."""

    path: Path

    @property
    def model(self) -> Path:
        """The finished model, which DifixPipeline opens."""
        return self.path / "model"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.path / CHECKPOINTS / f"{PREFIX}{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        found = (self.path / CHECKPOINTS).glob(f"{PREFIX}*")
        return sorted(int(folder.name.removeprefix(PREFIX)) for folder in found if folder.name[len(PREFIX) :].isdigit())

    def open(self, *, resume: bool) -> Path | None:
        """Make the folder ready to be written, without what killed writes left there.

        Returns:
            The checkpoint to continue from; None to begin.

        Raises:
            InputError: The folder cannot be written; it holds a run and ``resume`` is not set; or ``resume`` is set
                and it holds no checkpoint.
        """
        begun = bool(self.checkpoint_steps()) or self.model.exists()
        # Of several processes only the first one writes; a folder that is going to be refused may be at work.
        if os.environ.get("RANK", "0") == "0" and (resume or not begun):
            self._clear_up()
        steps = self.checkpoint_steps()
        # A run that ended before its first checkpoint has nothing to lose and nothing to continue from.
        if (steps or self.model.exists()) and not resume:
            raise InputError(f"{self.path} already holds a run: add --resume to continue it, or choose another folder")
        if resume and not steps:
            raise InputError(f"{self.path} holds no checkpoint to continue from: leave --resume out")
        check_writable(self.path)
        return self.checkpoint(steps[-1]) if steps else None

    def _clear_up(self) -> None:
        """Put back a checkpoint that a kill left between two renames; remove what else killed writes left."""
        for old in (self.path / CHECKPOINTS).glob(f".{PREFIX}*.old-*"):
            place = old.with_name(old.name.removeprefix(".").rpartition(".old-")[0])
            if place.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(place)
        for folder in (self.path, self.path / CHECKPOINTS, self.path / IMAGES):
            for partial in folder.glob(".*.partial-*"):
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink(missing_ok=True)

    def set_aside_after(self, step: int) -> None:
        """Take damaged checkpoints out of the way when a run continues from ``step``, an older one that is whole."""
        for damaged in (self.checkpoint(later) for later in self.checkpoint_steps() if later > step):
            aside = damaged.with_name(f"{DAMAGED}{damaged.name}")
            shutil.rmtree(aside, ignore_errors=True)
            damaged.rename(aside)
            logger.warning("Set the damaged checkpoint aside as %s: it may be deleted", aside)

    @property
    def model_step(self) -> int | None:
        """How many steps the finished model was trained; None where there is none, or none that says so."""
        try:
            values = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
            return int(values["metadata"]["training"]["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_json(self, name: str, values: Any) -> Path:
        """Write a JSON file atomically."""
        path = self.path / name
        partial = path.with_name(f".{name}.partial-{os.getpid()}")
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
        return path

    def write_image(self, name: str, rgb: np.ndarray) -> Path:
        """Write a picture of RGB bytes into `images`."""
        path = self.path / IMAGES / name
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f".{path.stem}.partial-{os.getpid()}.png")
        Image.fromarray(rgb).save(partial)
        partial.replace(path)
        return path

    def append_metrics(self, values: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that are trained again when a run continues from ``step``."""
        path = self.path / METRICS
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # A line cut off by an interruption.
        partial = path.with_name(f".{METRICS}.partial-{os.getpid()}")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        partial.replace(path)

    def keep_latest(self, count: int) -> None:
        """Delete all checkpoints but the latest ``count``."""
        for step in self.checkpoint_steps()[:-count]:
            shutil.rmtree(self.checkpoint(step))


def check_writable(folder: Path) -> None:
    """Create ``folder`` and try to write there.

    Raises:
        InputError: That fails.
    """
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
