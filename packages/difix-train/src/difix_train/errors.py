"""What is raised when the user's input is wrong, the same class as in difix_model, and when training breaks down."""

from __future__ import annotations

from difix_model.errors import InputError as InputError
from difix_model.errors import first_problems as first_problems

__all__ = ["InputError", "NonFiniteLossError", "first_problems"]


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became NaN or infinite; raised before the optimizer step, so the weights are sound.

    Args:
        message: What happened, for people.
        step: The step that was not made.
        ids: The samples it would have been made of.
    """

    def __init__(self, message: str, *, step: int, ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.step = step
        self.ids = ids
