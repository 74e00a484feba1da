"""Where what the libraries log goes: warnings to the screen, everything to a run's log file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from commands.progress import console
from output_files import unshared


class _Screen(logging.Handler):
    """Warnings above the bars, as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        word = "note" if record.levelno < logging.ERROR else "error"
        console.print(f"{word}: {record.getMessage()}", style="dim", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def messages_to(show: Callable[[str], object], name: str) -> Iterator[None]:
    """Give what a library's logger says of its steps, below warnings, to a function for the block."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno < logging.WARNING:
                show(record.getMessage())

    handler, logger = Shown(level=logging.INFO), logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def warnings_on() -> Iterator[None]:
    """Show what the libraries warn of for the block."""
    handler = _Screen(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Warnings on the screen, and everything from level INFO in a file, where one is given."""
    root = logging.getLogger()
    before = root.level
    file = None
    if path is not None:
        try:
            file = logging.FileHandler(unshared(path), encoding="utf-8")
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)
    root.setLevel(logging.INFO)
    try:
        with warnings_on():
            yield
    finally:
        root.setLevel(before)
        if file is not None:
            root.removeHandler(file)
            file.close()
