"""The error for what the user gave, as opposed to what this library did."""

from collections.abc import Iterator
from contextlib import contextmanager

from output_files import InputError as InputError


@contextmanager
def as_input_error() -> Iterator[None]:
    """Turn failed file access into an `InputError`.

    Raises:
        InputError: A file inside the block could not be read or written.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise InputError(f"{where}{error.strerror or error}") from error
