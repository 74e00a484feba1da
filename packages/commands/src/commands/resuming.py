"""One command line for a job that is killed and started again: --resume begins where nothing was begun."""

from __future__ import annotations

import sys
from pathlib import Path


def goes_on(folder: Path, *, resume: bool, traces: tuple[str, ...] = ("config.json",)) -> bool:
    """Whether a run goes on in a folder; says so where it was asked to and begins instead.

    Args:
        resume: Whether going on was asked for.
        traces: What is in the folder of a run that has begun: any of these names.
    """
    if not resume or any((folder / name).exists() for name in traces):
        return resume
    print(f"There is nothing in {folder} to go on with yet: the run begins.", file=sys.stderr)
    return False
