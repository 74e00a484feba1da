"""Files and folders that are there completely or not at all, also after a crash or a power cut. Imports no torch.

What is being written has the hidden name `.NAME.PID.tmp`, what is being replaced `.NAME.PID.old`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from output_files import flush, flush_alone
from train_runs.errors import InputError

HIDDEN_NAME = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(?P<kind>tmp|old)")
"""Of a file or folder that a killed writer left, or that a writer is at work on."""


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, and move it to ``path`` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush_alone(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file completely or not at all."""
    with written_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder beside its place and move it there; one that stands there goes only when the new one is complete.

    Args:
        write: Fills the empty folder that it is given.

    Raises:
        OSError: The folder cannot be written; the earlier one stands. So it does after any other error of ``write``.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        flush(temporary)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
        flush_alone(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            with contextlib.suppress(OSError):
                replaced.rename(folder)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove the hidden files and folders that killed writers left in a folder; nobody may be writing there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if not HIDDEN_NAME.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
