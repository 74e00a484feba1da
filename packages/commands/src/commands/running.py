"""From arguments to an exit code: the dataclass of flags, the function that gets it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
    failed: type[Exception] | tuple[type[Exception], ...] = (),
    stopped: str = "Stopped.",
) -> int:
    """Parse the arguments (`parse`), run what they ask for, and return its exit code (`outcome_of`)."""
    command = parse(
        kind,
        arguments,
        prog=prog,
        distribution=distribution,
        groups=groups,
        description=description,
        flat=flat,
    )
    return outcome_of(partial(run, command), failed=failed, stopped=stopped, parameters=parameters_of(kind, flat=flat))
