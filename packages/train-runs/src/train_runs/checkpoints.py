"""Checkpoints: folders of plain numbers, written completely or not at all, with checksums; nothing is pickled.

A checkpoint holds `state.json`, `state.safetensors`, whatever a task adds (a folder `model/` for use), and
`checksums.json` with the SHA-256 of every other file, written last. It is written to a hidden folder beside its own,
synced to disk and renamed; one that is replaced waits under a hidden name until the new one is in place. Whenever the
power goes, a valid checkpoint is there, at worst under a hidden name, where `latest_valid` finds it too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from output_files import check_writable
from train_runs.errors import InputError
from train_runs.files import remove_leftovers, replace_folder
from train_runs.run_folder import RunFolder, checkpoint_candidates, checkpoint_name

logger = logging.getLogger(__name__)

FORMAT = "train-runs checkpoint 1"
"""First entry of `state.json`."""

STATE_FILE, TENSORS_FILE, CHECKSUMS_FILE = "state.json", "state.safetensors", "checksums.json"

QUARANTINE_PREFIX = "damaged_"
"""What the name of a damaged checkpoint begins with after it was moved out of the way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a checkpoint holds, on the CPU."""

    path: Path
    values: dict[str, Any]
    """What JSON holds."""

    tensors: dict[str, Tensor]


def write_checkpoint(
    folder: Path,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    write_more: Callable[[Path], object] | None = None,
) -> None:
    """Write a checkpoint; one that is already there is replaced only when the new one is complete.

    Args:
        folder: The checkpoint's own folder, for example `checkpoints/step_003000`.
        values: Values that JSON can hold exactly.
        tensors: By name; brought to the CPU. Several may share memory.
        write_more: Adds files and folders to the folder that it is given.
    """

    def write(temporary: Path) -> None:
        save_file(_storable(tensors), temporary / TENSORS_FILE)
        text = json.dumps({"format": FORMAT, **values}, indent=1, allow_nan=False)
        (temporary / STATE_FILE).write_text(text + "\n", encoding="utf-8")
        if write_more is not None:
            write_more(temporary)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        checksums = {path.relative_to(temporary).as_posix(): _sha256(path) for path in files}
        (temporary / CHECKSUMS_FILE).write_text(json.dumps(checksums, indent=1) + "\n", encoding="utf-8")

    try:
        replace_folder(Path(folder), write)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write the checkpoint {folder}: {reason}") from error


def read_checkpoint(folder: Path, *, checked: bool = False) -> Checkpoint:
    """State and tensors of a checkpoint."""
    folder = Path(folder)
    if not checked:
        check_valid(folder)
    try:
        values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        return Checkpoint(path=folder, values=values, tensors=load_file(folder / TENSORS_FILE))
    except (OSError, ValueError, SafetensorError, RecursionError) as error:
        raise InputError(f"{folder} is not a valid checkpoint: {error}") from error


def check_valid(folder: Path) -> None:
    """Refuse a checkpoint whose files are not those of its checksums."""
    try:
        checksums = json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
        names = {STATE_FILE, TENSORS_FILE, *checksums}
        damaged = sorted(name for name in names if _sha256(folder / name) != checksums.get(name))
        found = None if damaged else json.loads((folder / STATE_FILE).read_text(encoding="utf-8")).get("format")
    except (OSError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{folder} is not a valid checkpoint: {error}") from error
    if damaged:
        raise InputError(f"the checkpoint {folder} is damaged, use another one: {', '.join(damaged)}")
    if found != FORMAT:
        raise InputError(f"the checkpoint {folder} has the format {found!r}, expected {FORMAT!r}: use another one")


def latest_valid(folder: Path) -> Path | None:
    """The valid checkpoint of the highest step in a folder of checkpoints; damaged ones are skipped with a warning.

    It may have a hidden name where a writer was killed, or is at work; `recover` puts that right.
    """
    for _, _, path in checkpoint_candidates(Path(folder)):
        try:
            check_valid(path)
        except InputError as error:
            # What a killed writer left unfinished is nothing to warn of.
            level = logging.DEBUG if path.name.startswith(".") else logging.WARNING
            logger.log(level, "Skipping a checkpoint: %s", error)
            continue
        return path
    return None


def recover(folder: Path) -> Path | None:
    """`latest_valid` for the one process that is going to write there: with its own name, and leftovers are removed.

    Damaged checkpoints of higher steps are renamed to `damaged_step_NNNNNN`, so that nothing takes them for newer ones.
    """
    folder = Path(folder)
    newest = latest_valid(folder)
    try:
        if newest is not None and newest.name.startswith("."):
            step = next(step for step, _, path in checkpoint_candidates(folder) if path == newest)
            own = folder / checkpoint_name(step)
            logger.warning("%s was not put in its place: it is now %s", newest, own.name)
            shutil.rmtree(own, ignore_errors=True)  # It is damaged, or it would have been found.
            newest = newest.rename(own)
        for _, _, path in checkpoint_candidates(folder):
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)
        if newest is not None:
            _quarantine_after(newest)
    except OSError as error:
        raise InputError(f"cannot put the checkpoints in {folder} in order: {error.strerror or error}") from error
    return newest


def put_in_order(run: RunFolder) -> Path | None:
    """`recover` for a whole run folder, which is made if it is not there."""
    check_writable(run.path, other="folder")
    newest = recover(run.checkpoints)
    for folder in (run.path, run.images):
        remove_leftovers(folder)
    if newest is None and run.checkpoint_steps():
        raise InputError(f"none of the checkpoints in {run.checkpoints} is valid: begin a new run in another folder")
    return newest


def remove_older(newest: Path, keep: int) -> None:
    """Remove the checkpoints of lower steps beside one, but for some.

    Args:
        keep: How many to keep, this one included; at least one.

    Raises:
        InputError: One cannot be removed.
    """
    ranked = [path for _, _, path in checkpoint_candidates(newest.parent) if not path.name.startswith(".")]
    try:
        for path in ranked[ranked.index(newest) + max(keep, 1) :]:
            shutil.rmtree(path)
    except OSError as error:
        raise InputError(f"cannot remove an older checkpoint than {newest}: {error.strerror or error}") from error


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _quarantine_after(newest: Path) -> None:
    for _, _, damaged in checkpoint_candidates(newest.parent):
        if damaged == newest:
            return
        aside = damaged.with_name(f"{QUARANTINE_PREFIX}{damaged.name}")
        shutil.rmtree(aside, ignore_errors=True)
        damaged.rename(aside)
        logger.warning("The damaged checkpoint is now %s: it may be deleted", aside)


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, and none in memory that another one uses."""
    found: dict[str, Tensor] = {}
    used: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        if storage in used or value.untyped_storage().nbytes() != value.nbytes:
            value = value.clone()
        used.add(value.untyped_storage().data_ptr())
        found[name] = value
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
