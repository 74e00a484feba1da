"""The last two lines of a command: what it made, and what to do next."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def next_line(*words: str | Path, extra: str | None = None) -> str:
    """A command line that works when it is pasted into the same shell.

    Args:
        words: The command and its arguments; they are quoted where the shell needs it.
        extra: Optional part of this project that the command needs, such as viewer.
    """
    start = ["uv", "run", *(["--extra", extra] if extra else [])]
    return shlex.join([*start, *(str(word) for word in words)])


def ended(made: str | Path, *following: str | Path, extra: str | None = None) -> None:
    """Print what was made, the last line of standard output, and below it what to do next.

    Args:
        following: The command that goes on from there, as for `next_line`; none where nothing suggests itself.
        extra: As for `next_line`.
    """
    print(made, flush=True)
    if following:
        print(f"Next: {next_line(*following, extra=extra)}", file=sys.stderr, flush=True)
