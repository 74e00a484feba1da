"""Branches as they were when validation scored them: what a rollback returns to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from difix3d.loop.checkpoint import BranchState

if TYPE_CHECKING:
    from difix3d.loop.branch import SplatBranch

BEST, LATEST = "best", "latest"
"""The snapshot with the best score, and the newest one since whose score was good enough."""


class Snapshots:
    """At most two snapshots of all branches, in the CPU's memory: each takes three times what its Gaussians take."""

    def __init__(self) -> None:
        self._kept: dict[str, list[BranchState]] = {}

    def keep(self, branches: Sequence[SplatBranch], *, best: bool) -> None:
        """Take a snapshot, of the best score so far or not; an older one that is not the best goes."""
        self._kept.pop(LATEST, None)
        self._kept[BEST if best else LATEST] = [branch.state(whole=True).copied() for branch in branches]

    def restore(self, branches: Sequence[SplatBranch], *, best: bool) -> None:
        """Bring branches back to the newest snapshot, or to the best one."""
        states = self._kept[BEST if best or LATEST not in self._kept else LATEST]
        for branch, state in zip(branches, states, strict=True):
            branch.restore(state)

    def write(self, folder: Path) -> None:
        """Write all snapshots into a checkpoint."""
        for name, states in self._kept.items():
            for index, state in enumerate(states):
                state.write(folder / name / str(index))

    def read(self, folder: Path) -> None:
        """Take over the snapshots of a checkpoint."""
        self._kept = {}
        for name in (BEST, LATEST):
            parts = sorted((folder / name).iterdir()) if (folder / name).is_dir() else []
            if parts:
                self._kept[name] = [BranchState.read(part) for part in parts]
