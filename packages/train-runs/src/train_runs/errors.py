"""What is raised when the user's input is wrong, and when a training breaks down. Imports no torch."""

from __future__ import annotations

from output_files import InputError as InputError
from output_files import first_problems as first_problems


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became NaN or infinite; raised before the optimizer step, so the weights are sound.

    Args:
        message: What happened, for people.
        step: The step that was not made.
        ids: The samples it would have been made of, as far as batches name theirs.
    """

    def __init__(self, message: str, *, step: int, ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.step = step
        self.ids = ids
