"""Signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""SIGHUP is unknown to Windows."""

ALWAYS = (signal.SIGINT, signal.SIGTERM)
"""Those that stop a command also where it was started with them ignored."""


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """What a shell expects of a command that a signal ended."""
    return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)


@contextmanager
def raised() -> Iterator[None]:
    """Every one of them raises KeyboardInterrupt with its number."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    with _handled(stop):
        yield


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collects the first one, for a loop that ends its step and saves; a second one interrupts at once."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt(number)
        received.append(number)

    with _handled(note):
        yield received


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Signals are the main thread's.
        yield
        return
    # `nohup` means that a closed terminal does not end the command. An ignored SIGINT only says that a script started
    # it in the background; who sends one all the same means it.
    numbers = [number for number in STOPPING if number in ALWAYS or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
