"""What is raised when the user's input is wrong, and when a training breaks down. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

MAX_SHOWN_PROBLEMS = 10


class InputError(ValueError):
    """What the user gave is wrong: one readable sentence that names the file and the fix."""


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


def first_problems(problems: Sequence[str]) -> str:
    """Join the first ten problems, of at least one, into one sentence and count the others."""
    shown = "; ".join(problems[:MAX_SHOWN_PROBLEMS])
    num_left_out = len(problems) - MAX_SHOWN_PROBLEMS
    return f"{shown}; and {num_left_out} more" if num_left_out > 0 else shown
