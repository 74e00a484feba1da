"""The folder of a run: what lies where, and whether a run may begin or continue there. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from output_files import check_links, check_writable, flush, unshared
from train_runs.errors import InputError
from train_runs.files import write_json, written_file

CHECKPOINT_NAME = re.compile(r"step_(\d+)|\.step_(\d+)\.\d+\.(tmp|old)")
"""A checkpoint's own name, or a hidden one: being written, or being replaced."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of everything in a run folder, and what may be written there."""

    path: Path
    """The folder itself."""

    @property
    def config(self) -> Path:
        """Settings and versions."""
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """What was measured on the way, one JSON object with a `step` per line."""
        return self.path / "metrics.jsonl"

    @property
    def images(self) -> Path:
        """Pictures to look at."""
        return self.path / "images"

    @property
    def log(self) -> Path:
        """What the run said."""
        return self.path / "log.txt"

    @property
    def model(self) -> Path:
        """The finished model, for use."""
        return self.path / "model"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint after ``step`` steps."""
        return self.checkpoints / checkpoint_name(step)

    def checkpoint_steps(self) -> list[int]:
        """Steps with a checkpoint under its own name, ascending."""
        return sorted(step for step, _, path in checkpoint_candidates(self.checkpoints) if path.name[0] != ".")

    def open(self, *, resume: bool) -> None:
        """Make the folder ready for a run that begins, or for one that goes on.

        Raises:
            InputError: The folder cannot be written; a link in it leads out of it; it holds a run and ``resume`` is not
                set; or ``resume`` is set and it holds no checkpoint.
        """
        # A run that ended before its first checkpoint has nothing to lose and nothing to continue from.
        has_checkpoint = bool(checkpoint_candidates(self.checkpoints))
        if (has_checkpoint or self.model.exists()) and not resume:
            raise InputError(f"{self.path} already holds a run: set resume to continue it, or choose another folder")
        if resume and not has_checkpoint:
            raise InputError(f"{self.path} holds no checkpoint to continue from: leave resume out")
        if not resume and not self._config_is_ours():
            raise InputError(f"{self.config} is of something else, and would be replaced: choose another folder")
        check_links(self.path)
        check_writable(self.path, other="folder")

    def _config_is_ours(self) -> bool:
        """Whether `config.json`, if it is there, is one that `write_config` wrote."""
        if not self.config.exists():
            return True
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(content, dict) and content.keys() == {"settings", "versions"}

    def write_config(self, settings: Mapping[str, Any], *, distributions: Sequence[str] = ()) -> None:
        """Write `config.json`: the resolved settings, and versions of Python, torch and the named distributions."""
        found = versions((*distributions, "train-runs", "torch", "numpy"))
        write_json(self.config, {"settings": dict(settings), "versions": found})

    def write_json(self, name: str, values: Any) -> Path:
        """Write a JSON file into the folder."""
        write_json(self.path / name, values)
        return self.path / name

    def write_image(self, name: str, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
        """Write a picture of RGB bytes into `images`, as PNG."""
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_file(path) as temporary:
            Image.fromarray(rgb).save(temporary, format="PNG")
        return path

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with unshared(self.metrics).open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(values)) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without one that an interruption cut off."""
        return read_records(self.metrics)

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines of steps after ``step``, which are made again."""
        if not self.metrics.is_file():
            return
        kept = [values for values in self.read_metrics() if values["step"] <= step]
        with written_file(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(values) + "\n" for values in kept), encoding="utf-8")

    def flush_metrics(self) -> None:
        """Wait until metrics.jsonl is on the disk."""
        if self.metrics.is_file():
            flush(self.metrics)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects that have a whole `step`; none where there is no such file."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """The versions of Python, and of those of the named distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys(distributions):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after ``step`` steps."""
    return f"step_{step:06d}"


def checkpoint_candidates(folder: Path) -> list[tuple[int, int, Path]]:
    """Step, preference and path of everything in a folder that may be a checkpoint, the newest and best first.

    Of one step, the one under its own name comes first, then what was being written, then what was being replaced.
    """
    if not folder.is_dir():
        return []
    preference = {None: 2, "tmp": 1, "old": 0}
    found = [(match, path) for path in folder.iterdir() if (match := CHECKPOINT_NAME.fullmatch(path.name))]
    return sorted(((int(match[1] or match[2]), preference[match[3]], path) for match, path in found), reverse=True)
