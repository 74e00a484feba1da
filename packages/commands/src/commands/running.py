"""From arguments to an exit code: the dataclass of flags, the function that gets it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from commands.exits import outcome_of
from commands.help import Groups, parameters_of
from commands.parsing import parse

T = TypeVar("T")


def run_command(
    kind: type[T],
    run: Callable[[T], int],
    arguments: Sequence[str] | None,
    *,
    prog: str,
    distribution: str,
    groups: Groups | None = None,
    description: str | None = None,
    flat: bool = False,
    default: Callable[[], T | None] = lambda: None,
    failed: type[Exception] | tuple[type[Exception], ...] = (),
    stopped: str = "Stopped.",
) -> int:
    """Parse the arguments (`parse`), run what they ask for, and return its exit code (`outcome_of`).

    Parameters are those of the two; `default` reads what flags that are not given come to, and may fail as the command.
    """

    def parsed_and_run() -> int:
        command = parse(
            kind,
            arguments,
            prog=prog,
            distribution=distribution,
            groups=groups,
            description=description,
            flat=flat,
            default=default(),
        )
        return run(command)

    return outcome_of(parsed_and_run, failed=failed, stopped=stopped, parameters=parameters_of(kind, flat=flat))
