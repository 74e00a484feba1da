"""The error that says: what the user gave is wrong."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_PROBLEMS = 10


class InputError(ValueError):
    """What the user gave is wrong: one readable sentence that names the file and the fix."""


def first_problems(problems: Sequence[str]) -> str:
    """Join the first ten problems into one sentence and count the others.

    Args:
        problems: What is wrong, one item per problem; must not be empty.

    Returns:
        The problems separated by semicolons, with "and N more" where some were left out.
    """
    shown = "; ".join(problems[:SHOWN_PROBLEMS])
    left_out = len(problems) - SHOWN_PROBLEMS
    return f"{shown}; and {left_out} more" if left_out > 0 else shown
