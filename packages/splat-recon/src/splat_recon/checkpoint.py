"""Checkpoints of a training run: folders of plain numbers, written whole or not at all.

A checkpoint holds `state.json`, `tensors.npz` and `checksums.json` (SHA-256 of the other two, written last). It is
written to a hidden folder beside its own, each file and the folder are synced to disk, and the folder is renamed.
One that is replaced waits under a hidden name until the new one is in place. So whenever the power goes, a whole
checkpoint is there, at worst under a hidden name, where `newest_checkpoint` finds it too. Nothing in it is pickled.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from splat_recon.errors import InputError
from splat_render.gaussians import Gaussians

logger = logging.getLogger(__name__)

FORMAT = "splat-recon checkpoint 2"
"""First entry of `state.json`."""

STATE_FILE, TENSORS_FILE, CHECKSUMS_FILE = "state.json", "tensors.npz", "checksums.json"

_FOLDER_NAME = re.compile(r"step_(\d+)|\.step_(\d+)\.\d+\.(tmp|old)")
"""A checkpoint's own name, or a hidden one: being written, or being replaced."""

_PREFERENCE = {None: 2, "tmp": 1, "old": 0}
"""Among whole checkpoints of one step: under its own name, then the one that was being written."""

GAUSSIANS_PREFIX = "gaussians."
"""Prefix of the raw parameters among the tensors."""


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step_{step:06d}"


def write_checkpoint(folder: Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; one that is already there is replaced only when the new one is complete.

    Args:
        folder: The checkpoint's own folder, for example `checkpoints/step_003000`.
        state: Values that JSON can hold exactly.
        tensors: By name; brought to the CPU.

    Raises:
        InputError: The folder cannot be written.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        with (temporary / TENSORS_FILE).open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            _sync(file)
        _write_json(temporary / STATE_FILE, {"format": FORMAT, **state})
        checksums = {name: _sha256(temporary / name) for name in (STATE_FILE, TENSORS_FILE)}
        _write_json(temporary / CHECKSUMS_FILE, checksums)
        _sync_folder(temporary)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
        _sync_folder(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            with contextlib.suppress(OSError):
                replaced.rename(folder)
        raise InputError(f"cannot write the checkpoint {folder}: {error.strerror or error}") from error


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State and tensors (on the CPU) of a checkpoint.

    Raises:
        InputError: There is no whole checkpoint of this format.
    """
    folder = Path(folder)
    try:
        checksums = json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
        damaged = [name for name in (STATE_FILE, TENSORS_FILE) if _sha256(folder / name) != checksums[name]]
        if not damaged:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            if state.get("format") == FORMAT:
                with np.load(folder / TENSORS_FILE, allow_pickle=False) as arrays:
                    return state, {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, KeyError, AttributeError, TypeError, ValueError, zipfile.BadZipFile, RecursionError) as error:
        raise InputError(f"{folder} is not a whole checkpoint: {error}") from error
    if damaged:
        raise InputError(f"checkpoint {folder}: {damaged[0]} is damaged (its checksum differs); use another one")
    raise InputError(
        f"checkpoint {folder}: expected format {FORMAT!r}, got {state.get('format')!r}: it is of another version"
    )


def newest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint of the highest step in a folder of checkpoints; damaged ones are skipped with a warning.

    It may have a hidden name where a writer was killed, or is at work; `recovered_checkpoint` puts that right.
    """
    for _, _, path in _candidates(Path(folder)):
        try:
            read_checkpoint(path)
        except InputError as error:
            # What a killed writer left unfinished is nothing to warn of.
            level = logging.DEBUG if path.name.startswith(".") else logging.WARNING
            logger.log(level, "skipping a checkpoint: %s", error)
            continue
        return path
    return None


def recovered_checkpoint(folder: Path) -> Path | None:
    """`newest_checkpoint` for the one process that is going to write: under its own name, and leftovers are removed.

    Raises:
        InputError: The folder cannot be written.
    """
    folder = Path(folder)
    newest = newest_checkpoint(folder)
    try:
        if newest is not None and newest.name.startswith("."):
            step = next(step for step, _, path in _candidates(folder) if path == newest)
            own = folder / checkpoint_name(step)
            logger.warning("%s was not put in its place: it is now %s", newest, own.name)
            shutil.rmtree(own, ignore_errors=True)  # It is not whole, or it would have been found.
            newest = newest.rename(own)
        for _, _, path in _candidates(folder):
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot put the checkpoints in {folder} in order: {error.strerror or error}") from error
    return newest


def remove_older_checkpoints(newest: Path, keep: int) -> None:
    """Remove the checkpoints of lower steps beside one, but for some.

    Those of higher steps, which a resumed run has found damaged, are left alone and do not count.

    Args:
        newest: The checkpoint that was just written whole.
        keep: How many to keep, this one included; at least one.

    Raises:
        InputError: One cannot be removed.
    """
    newest = Path(newest)
    ranked = [path for _, _, path in _candidates(newest.parent) if not path.name.startswith(".")]
    try:
        for path in ranked[ranked.index(newest) + max(keep, 1) :]:
            shutil.rmtree(path)
    except OSError as error:
        raise InputError(f"cannot remove an older checkpoint of {newest}: {error.strerror or error}") from error


def _candidates(folder: Path) -> list[tuple[int, int, Path]]:
    """Step, preference and path of everything that may be a checkpoint, the newest and best first."""
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := _FOLDER_NAME.fullmatch(path.name))]
    ranked = [(int(match[1] or match[2]), _PREFERENCE[match[3]], path) for match, path in found]
    return sorted(ranked, reverse=True)


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


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        _sync(file)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
