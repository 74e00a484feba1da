"""Files that are either there completely or not at all, also after a crash or a power cut."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from difix_model.errors import InputError
from output_files import flush, flush_alone


def write_whole(out: Path, write: Callable[[Path], object]) -> None:
    """Write a new file or folder beside its place, wait until it is on the disk, then move it there.

    Args:
        out: Must not exist, or be an empty folder.

    Raises:
        InputError: If there is something at `out`, or it cannot be written.
    """
    check_free(out)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        flush(partial)
        if out.is_dir():
            out.rmdir()
        partial.replace(out)
        flush_alone(out.parent)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def check_free(out: Path) -> None:
    """Check that nothing would be overwritten."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists: give another place, or remove it first")
