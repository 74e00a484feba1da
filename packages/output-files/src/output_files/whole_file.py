"""Files that are there whole or not at all, and that nobody else has a name for."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from output_files.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, and rename it to `path` when the block ends without an error.

    What `path` was before, a link or one of several names of a file, is replaced and not written through. The
    temporary file is hidden, stands beside it and has the same ending.
    """
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A link may lie in wait under this name, too.
        partial.unlink(missing_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_writable(folder: Path, *, other: str = "--out", keep: bool = True) -> None:
    """Make a folder and try to write to it, or refuse it.

    Args:
        other: What the message says to choose another of.
        keep: Whether a folder that was not there stays.
    """
    made: list[Path] = []
    probe = folder / f".{os.getpid()}.probe"
    try:
        made = [] if keep else [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe.unlink(missing_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; choose another {other}") from error
    finally:
        for path in made:
            with suppress(OSError):  # Some of them may not have been made.
                path.rmdir()


def flush(path: Path) -> None:
    """Wait until a file is on the disk, or all that is in a folder and the names in it."""
    for inside in sorted(path.rglob("*")) if path.is_dir() else []:
        flush_alone(inside)
    flush_alone(path)


def flush_alone(path: Path) -> None:
    """Wait until a file's or a folder's content is on the disk; a folder's content are the names in it."""
    if path.is_dir() and os.name != "posix":
        return  # Windows does not open folders; it writes names through.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unshared(path: Path) -> Path:
    """Prepare a file to be appended to: where it is a link, or a file with several names, it becomes a copy of its own.

    Returns:
        The same path, which may not be there yet.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return path
    if stat.S_ISLNK(status.st_mode) and not path.exists():
        path.unlink()
    elif not path.is_dir() and (stat.S_ISLNK(status.st_mode) or status.st_nlink > 1):
        with written_whole(path) as partial:
            shutil.copyfile(path, partial)
    return path
