"""The error that says: what the user gave is wrong. One class for all libraries, in the leaf below them."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_PROBLEMS = 10
"""How many problems one message lists before it only counts the rest."""


class InputError(ValueError):
    """What the user gave is wrong: one readable message that names the file and says what to do about it."""

    @classmethod
    def from_problems(cls, where: str, problems: Sequence[str]) -> InputError:
        """One error for all, at least one, that is wrong with one input, such as ``scene /data/garden``."""
        if len(problems) == 1:
            return cls(f"{where}: {problems[0]}")
        shown = list(problems[:SHOWN_PROBLEMS])
        left = len(problems) - len(shown)
        if left:
            shown.append(f"and {left} more")
        return cls(f"{where}: {len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in shown))


def first_problems(problems: Sequence[str]) -> str:
    """Join the first ten problems, of at least one, into one sentence and count the others."""
    shown = "; ".join(problems[:SHOWN_PROBLEMS])
    left = len(problems) - SHOWN_PROBLEMS
    return f"{shown}; and {left} more" if left > 0 else shown
