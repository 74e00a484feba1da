"""Inputs that outputs must leave alone."""

from collections.abc import Iterable
from pathlib import Path

from output_files.errors import InputError


def check_inputs_kept(outputs: Iterable[Path], inputs: Iterable[Path], *, fix: str = "choose another --out") -> None:
    """Refuse outputs that would replace an input, or that would lie in a folder which is an input.

    Files are compared, not names: links and other spellings lead to one file, too.

    Args:
        inputs: Files and folders that are read; those that are not there are left aside.
        fix: End of the sentence: what to do.
    """
    files, folders = {}, {}
    for path in inputs:
        found = _id(path)
        if found is not None:
            (folders if path.is_dir() else files)[found] = path
    known: dict[Path, Path | None] = {}
    for path in outputs:
        if (replaced := files.get(_id(path))) is not None:
            raise InputError(f"{replaced} is read, and would be replaced by {path}: {fix}")
        if folders and (mixed := _holding(path.parent.absolute(), folders, known)) is not None:
            raise InputError(f"{path} would be written into {mixed}, which is read: {fix}")


def _holding(folder: Path, folders: dict[tuple[int, int], Path], known: dict[Path, Path | None]) -> Path | None:
    """Which of the folders holds a folder, or is it."""
    if folder not in known:
        # Links are followed for the folder that is there, so that its parents are those of the disk.
        real = folder.resolve()
        known[folder] = next(
            (folders[found] for each in (real, *real.parents) if (found := _id(each)) in folders), None
        )
    return known[folder]


def _id(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
