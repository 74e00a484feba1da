"""One scene of many, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from difix3d.run.settings import RunSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneTask:
    """One scene of a queue."""

    name: str
    """Name of its folder, of the scene as of the run."""

    settings: RunSettings
    """What to do, the scene's folder among it."""

    folder: Path
    """Where its run goes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """The result of one scene."""

    name: str
    """The scene."""

    error: str | None = None
    """What went wrong, in a sentence."""

    was_finished: bool = False
    """Whether there was nothing left to do."""
