"""The whole loop on disk: its branches, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difix3d.errors import InputError
from difix3d.loop.checkpoint import BranchState

if TYPE_CHECKING:
    from difix3d.loop.branch import SplatBranch

LOOP = "loop.json"
"""File of how far the loop is."""

COUNTS = ("step", "num_rounds_done", "num_events_done")
"""How far a run is, among what is written."""

BRANCHES = ("main", "validation")
"""Folders of the loop's branches."""


def write_loop(folder: Path, branches: Sequence[SplatBranch], state: Mapping[str, Any]) -> None:
    """Write the loop's branches, and how far it is: plain values."""
    for name, branch in zip(BRANCHES, branches, strict=False):
        branch.state().write(folder / name)
    (folder / LOOP).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def load_loop(folder: Path, branches: Sequence[SplatBranch], *, num_events: int) -> dict[str, Any]:
    """Bring branches to where they were written, and read how far the loop was.

    Args:
        folder: Where `write_loop` wrote.
    """
    try:
        state = json.loads((folder / LOOP).read_text(encoding="utf-8"))
        for name in (*COUNTS, "policy"):
            state[name]
        if state["num_events_done"] > num_events:
            raise InputError(f"checkpoint {folder} is of another run: it has {state['num_rounds_done']} rounds")
    except (OSError, KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"checkpoint {folder} cannot be read ({error}): resume from another one") from error
    for name, branch in zip(BRANCHES, branches, strict=False):
        branch.restore(BranchState.read(folder / name))
    return state
