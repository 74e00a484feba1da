"""Stopping in good order: SIGTERM as Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stoppable() -> Iterator[Callable[[], int]]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does; what is yielded tells the number of the signal."""
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        # Signals are for the main thread.
        yield lambda: int(signal.SIGINT)
        return
    try:
        yield lambda: received[-1] if received else int(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
