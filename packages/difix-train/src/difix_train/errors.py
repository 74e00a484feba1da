"""What is raised when the user's input is wrong, the same class as in difix_model, and when training breaks down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import train_runs.errors
from difix_model.errors import InputError as InputError
from difix_model.errors import first_problems as first_problems
from train_runs.errors import NonFiniteLossError as NonFiniteLossError

__all__ = ["InputError", "NonFiniteLossError", "as_input_error", "first_problems"]


@contextmanager
def as_input_error() -> Iterator[None]:
    """Turn what train_runs raises for bad input into the error of this library.

    Raises:
        InputError: Something inside the block found bad input.
    """
    try:
        yield
    except train_runs.errors.InputError as error:
        raise InputError(str(error)) from error
