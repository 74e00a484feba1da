"""How a command ends: an exit code, and at most one sentence on what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from commands import signals
from commands.flags import as_flags
from output_files import InputError

DONE, FAILED, BAD_INPUT = 0, 1, 2
"""All is done; something failed that the user cannot put right at once; what was given must be put right."""

BROKEN_PIPE = 141
"""What a shell reports of a command whose reader went away: 128 and the number of SIGPIPE."""


def outcome_of(
    run: Callable[[], int],
    *,
    failed: type[Exception] | tuple[type[Exception], ...] = (),
    stopped: str = "Stopped.",
    parameters: Mapping[str, str] | None = None,
) -> int:
    """Run a command and return its exit code; signals that ask it to stop raise KeyboardInterrupt in it.

    An `InputError`, whose text is a sentence, and failed file access are what the user can put right. Any other error
    is a defect, and keeps its trace.

    Args:
        run: The command; returns an exit code.
        failed: Errors whose text is a sentence about a run that broke down.
        stopped: What to say where a signal ends the command and it has said nothing itself.
        parameters: The command's flags (`parameters_of`): errors name parameters, and users know flags.

    Returns:
        What `run` returns; 2 on bad input; 1 where it broke down; 128 and the signal's number where one stopped it.
    """
    try:
        with signals.raised():
            code = run()
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        return _nobody_reads()
    except InputError as error:
        return _said(as_flags(str(error), parameters or {}), BAD_INPUT)
    except OSError as error:
        return _said(_of_system(error), BAD_INPUT)
    except failed as error:
        return _said(as_flags(str(error), parameters or {}), FAILED)
    except KeyboardInterrupt as interrupt:
        print(stopped, file=sys.stderr)
        return signals.exit_code(interrupt)


def leave(text: str, code: int = DONE) -> NoReturn:
    """Print a text that was asked for, such as help, and end the process."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        code = _nobody_reads()
    raise SystemExit(code)


def left(code: int, *, at_once: bool) -> int:
    """The exit code; leaves the process `at_once` where what it is at cannot be stopped, and would make it abort."""
    if at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _nobody_reads() -> int:
    """`difix3d-train ... | head`: nobody reads on, and Python must not complain about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _said(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code


def _of_system(error: OSError) -> str:
    """Some are sentences already; the system's own errors are a number and a word."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"
