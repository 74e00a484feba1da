"""The error that tells a user what is wrong with the input."""

from collections.abc import Sequence

MAX_PROBLEMS_SHOWN = 10
"""How many problems one error message lists before it only counts the rest."""


class InputError(ValueError):
    """What the user gave is wrong: one readable message that names the file and says what to do about it."""

    @classmethod
    def from_problems(cls, where: str, problems: Sequence[str]) -> "InputError":
        """One error for everything that is wrong with one input.

        Args:
            where: The input, for example ``scene /data/garden``.
            problems: One sentence per problem, at least one; the first ten are shown.
        """
        if len(problems) == 1:
            return cls(f"{where}: {problems[0]}")
        shown = list(problems[:MAX_PROBLEMS_SHOWN])
        left = len(problems) - len(shown)
        if left:
            shown.append(f"and {left} more")
        return cls(f"{where}: {len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in shown))
