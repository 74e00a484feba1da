"""Strikes at the n-th file operation inside a folder: a kill, or an error of the operating system."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.fsync")
"""Moments at which it can strike; all but the last are audit events of Python."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing in a library may catch it."""


class Striker:
    """Raises at the n-th file operation inside a folder."""

    def __init__(self) -> None:
        self.folder, self.left, self.lasting, self.seen = "", -1, False, 0
        self.error: BaseException | None = None

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.folder or event not in EVENTS:
            return
        if event != "os.fsync" and not str(arguments[0] if arguments else "").startswith(self.folder):
            return
        self.seen += 1
        self.left -= 1
        strikes = self.left == 0 or (self.lasting and self.left < 0 and event in ("open", "os.mkdir", "os.fsync"))
        if strikes and self.error is not None:
            raise self.error


STRIKER = Striker()
sys.addaudithook(STRIKER)


@contextmanager
def struck(folder: Path, moment: int, error: BaseException | None, *, lasting: bool = False) -> Iterator[Striker]:
    """Raise an error at the n-th file operation below a folder.

    Args:
        folder: Whose operations count.
        moment: Which one, counted from 1; negative for none, to count them.
        error: What is raised.
        lasting: Go on to fail at everything that writes, like a full disk.
    """
    STRIKER.folder, STRIKER.left, STRIKER.error = str(folder), moment, error
    STRIKER.lasting, STRIKER.seen = lasting, 0
    fsync = os.fsync

    def audited(descriptor: int) -> None:
        STRIKER("os.fsync", (str(descriptor),))
        fsync(descriptor)

    os.fsync = audited
    try:
        yield STRIKER
    finally:
        STRIKER.folder, os.fsync = "", fsync
