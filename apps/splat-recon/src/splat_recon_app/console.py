"""What the user sees and what `log.txt` keeps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from output_files import unshared
from splat_recon.errors import InputError

console = Console(stderr=True)
"""Progress and messages; standard output has only the path written last."""


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Warnings of the library on the screen, everything from level INFO in a file."""
    root = logging.getLogger()
    screen = RichHandler(console=console, level=logging.WARNING, show_time=False, show_path=False)
    handlers: list[logging.Handler] = [screen]
    if path is not None:
        try:
            file = logging.FileHandler(unshared(path), encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        file.setLevel(logging.INFO)
        handlers.append(file)
    before = root.level
    root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def progress_bar() -> Progress:
    """A bar with the count, a free text field `note`, and times."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
