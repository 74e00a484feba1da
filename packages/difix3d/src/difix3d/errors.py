"""The error for what the user gave, as opposed to what this library did."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What the user gave is wrong: one readable sentence that names the file and says what to do about it."""


@contextmanager
def as_input_error() -> Iterator[None]:
    """Turn the input errors of the libraries below, and failed file access, into this library's own.

    Raises:
        InputError: Something inside the block found bad input.
    """
    from difix_model.errors import InputError as ModelInputError
    from splat_recon.errors import InputError as SplatInputError
    from train_runs.errors import InputError as RunInputError

    try:
        yield
    except (ModelInputError, SplatInputError, RunInputError) as error:
        raise InputError(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise InputError(f"{where}{error.strerror or error}") from error
