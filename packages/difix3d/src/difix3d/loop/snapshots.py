"""Branches as they were when validation scored them: what a rollback returns to."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from difix3d.loop.branch import SplatBranch

BEST, LATEST = "best", "latest"
"""The snapshot with the best score, and the newest one since whose score was good enough."""


class Snapshots:
    """At most two snapshots of all branches, on disk; they go with this object.

    Args:
        parent: Where their folder is made, when there is one; None: the system's temporary folder.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent

    @cached_property
    def folder(self) -> Path:
        """Where they are; made when it is first asked for."""
        if self._parent is not None:
            self._parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="difix3d-snapshots-", dir=self._parent))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def keep(self, branches: Sequence[SplatBranch], *, best: bool) -> None:
        """Take a snapshot, of the best score so far or not; an older one that is not the best goes."""
        shutil.rmtree(self.folder / LATEST, ignore_errors=True)
        for index, branch in enumerate(branches):
            branch.save(self.folder / (BEST if best else LATEST) / str(index), whole=True)

    def restore(self, branches: Sequence[SplatBranch], *, best: bool) -> None:
        """Bring branches back to the newest snapshot, or to the best one."""
        name = BEST if best or not (self.folder / LATEST).exists() else LATEST
        for index, branch in enumerate(branches):
            branch.load(self.folder / name / str(index))

    def copy_to(self, folder: Path) -> None:
        """Copy all snapshots into a checkpoint."""
        for name in (BEST, LATEST):
            if (self.folder / name).exists():
                shutil.copytree(self.folder / name, folder / name, dirs_exist_ok=True)

    def copy_from(self, folder: Path) -> None:
        """Take over the snapshots of a checkpoint."""
        for name in (BEST, LATEST):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            if (folder / name).exists():
                shutil.copytree(folder / name, self.folder / name)
