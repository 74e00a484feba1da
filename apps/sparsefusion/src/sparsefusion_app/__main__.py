"""Entry point of `sparsefusion`: parse, run, turn errors into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Any

BAD_INPUT = 2
"""Exit code for what the user can put right."""

USAGE = """usage: sparsefusion reconstruct --out FOLDER [options]

A neural field of an object from a few posed, masked photos.

  reconstruct   fit a field, write renders, films, scores, the field, a splat and a page

It answers --help.
"""


class _Stopped(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: Any) -> None:
    raise _Stopped(number)


def main(arguments: list[str] | None = None) -> int:
    """Run `sparsefusion`; 0 on success, 2 on bad input, 128 and its number when stopped by a signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if given else BAD_INPUT
    if given[0] != "reconstruct":
        print(f"error: {given[0]!r} is no command: take reconstruct", file=sys.stderr)
        return BAD_INPUT
    import tyro

    from sparsefusion_app.cli import ReconstructSettings

    try:
        settings = tyro.cli(ReconstructSettings, args=given[1:], prog="sparsefusion reconstruct")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    from sparsefusion_app.reconstruct import reconstruct

    before = None
    with contextlib.suppress(ValueError):  # Signals are for the main thread.
        before = signal.signal(signal.SIGTERM, _stop)
    try:
        return reconstruct(settings)
    except (OSError, ValueError) as error:
        # All libraries' input errors are ValueErrors of their own class; anything else is a defect and keeps its trace.
        if isinstance(error, OSError) or type(error).__name__ == "InputError":
            print(f"error: {error}", file=sys.stderr)
            return BAD_INPUT
        raise
    except KeyboardInterrupt as interrupt:
        print("stopped; the same command with --resume goes on", file=sys.stderr)
        return 128 + getattr(interrupt, "number", int(signal.SIGINT))
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
