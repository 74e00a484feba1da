"""Files that appear under their names only when they are complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import output_files
from splat_render.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, and rename it to `path` when the block ends without an error.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        with output_files.written_whole(path) as partial:
            yield partial
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def write_text_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_bytes(path: Path) -> bytes:
    """All of a file.

    Raises:
        InputError: It is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
