"""The errors that tell a user what happened: bad input (splat_render's own class), and a training that diverged."""

from collections.abc import Iterator
from contextlib import contextmanager

from media_files.errors import InputError as MediaError
from splat_render.errors import InputError as InputError

__all__ = ["DivergedError", "InputError", "as_input_error"]


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number; the last optimizer step before it stands."""


@contextmanager
def as_input_error() -> Iterator[None]:
    """Turn what is said of photos and videos into this library's own error.

    Raises:
        InputError: Something inside the block found bad input.
    """
    try:
        yield
    except MediaError as error:
        raise InputError(str(error)) from error
