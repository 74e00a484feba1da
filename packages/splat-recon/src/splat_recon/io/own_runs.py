"""What the folders of this project's own runs say about where their splats come from. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splat_render.files.folders import Which, newest_splat

CONFIG_FILE, CAMERAS_FILE = "config.json", "cameras.json"
"""Files of every run."""

COMPARED = "resolved"
"""What only the configuration of a run of difix3d-train has."""


def is_splat_run(path: Path) -> bool:
    """Whether a path is to be read as a run of `splat-recon train`, from its checkpoints.

    It is, too, where it is a folder with nothing else to read: then the run's own words tell what is missing.
    """
    if "train" in _settings(path):
        return True
    return path.is_dir() and COMPARED not in _config(path) and newest_splat(path) is None


def splat_in_training(path: Path, which: Which = "best") -> Path | None:
    """Of a run of difix3d-train that is not over, the checkpoint of one of its splats; None where there is none.

    Args:
        which: Plain training's, or the newest of the loop's; best is the loop's, since nothing is compared yet.
    """
    if COMPARED not in _config(path) or newest_splat(path, which) is not None:
        return None
    found = {int(number): one for one in path.glob("checkpoints/step_*") if (number := one.name[5:]).isdigit()}
    if not found:
        return None
    newest = found[max(found)]
    loops = [newest / "loop" / "main" / "splat", newest / "loop" / "student" / "splat"]
    loops += sorted(newest.glob("loop/member_*"), reverse=True)
    # Until the loop has a splat of its own it is plain training's.
    splats = [newest / "plain"] if which == "plain" else [*loops, newest / "plain"]
    return next((splat for splat in splats if (splat / "state.json").is_file()), None)


def scene_of_run(path: Path) -> Path | None:
    """The folder of the scene that a run was made from, where it says so and the folder is still there."""
    named = _settings(path).get("scene")
    return Path(named) if isinstance(named, str) and Path(named).is_dir() else None


def cameras_of_run(path: Path) -> Path | None:
    """What names the cameras of a run's photos: its cameras.json, or else its scene."""
    if path.is_dir() and (path / CAMERAS_FILE).is_file():
        return path / CAMERAS_FILE
    return scene_of_run(path)


def _settings(path: Path) -> dict[str, Any]:
    settings = _config(path).get("settings")
    return settings if isinstance(settings, dict) else {}


def _config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
