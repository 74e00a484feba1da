"""The error that says: what the user gave is wrong."""

from pathlib import Path

from output_files import InputError as InputError


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
