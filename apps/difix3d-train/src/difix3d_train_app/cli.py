"""What `difix3d-train` understands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from commands import Groups
from difix3d import InputError, RoundsConfig, RunSettings, ViewFixerConfig

DISTRIBUTION = "difix3d-train-app"

GROUPS: Groups = {
    "what matters": ("photos", "scene", "out", "quality", "max_steps", "model", "gate", "resume"),
    "photos and scenes": ("max_size", "sparse", "split", "scenes", "num_processes", "ray", "image_memory"),
    "watching": ("viewer", "viewer_host", "viewer_port"),
}
"""What `--help` shows; `--help all` adds the rest."""


@dataclass(frozen=True, kw_only=True)
class RunFlags(RunSettings):
    """The settings of a run as flags: those of the fixer and of rounds go without a prefix."""

    fixer: Annotated[ViewFixerConfig, tyro.conf.arg(name="")] = field(default_factory=ViewFixerConfig)
    rounds: Annotated[RoundsConfig, tyro.conf.arg(name="")] = field(default_factory=RoundsConfig)


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a Gaussian splat that improves with fixed novel views, and compare it with plain training.

    Without arguments a generated scene with few photos is reconstructed, in a few minutes on two cores. The last line
    is the path of the report.
    """

    photos: Path | None = None
    """A folder of photos, or a video, without cameras: they are found first (structure from motion), in the same run.
    This or --scene."""

    run: Annotated[RunFlags, tyro.conf.arg(name="")] = field(default_factory=RunFlags)

    out: Path | None = None
    """New folder for everything that is written. None: runs/demo or runs/ and the scene's name, numbered if taken."""

    config: Path | None = None
    """The config.json of a run, or its folder: its settings hold where other flags do not say otherwise."""

    scenes: Path | None = None
    """A folder of scenes, instead of --scene: each is run with the same settings, into a folder of its own under --out
    (None: runs/ and the folder's name). Finished scenes are skipped, and failed ones do not stop the rest."""

    num_processes: int = 1
    """With --scenes: how many scenes at a time on this machine."""

    ray: str | None = None
    """With --scenes: run on Ray, "local" or the address of a cluster whose nodes see all folders (extra ray)."""

    viewer: bool = False
    """Show the training live in the browser (extra viewer); it changes nothing about the result."""

    viewer_host: str = "127.0.0.1"
    """Address that the viewer listens on: this machine's own, unless told otherwise."""

    viewer_port: int = 8080
    """Port of the viewer; the next free one where it is taken."""

    stop_at: int | None = None
    """Stop after this step, save a checkpoint and compare nothing; go on later with --resume."""

    resume: bool = False
    """Go on with the run in --out (None: the newest default folder), with the settings it was started with, or begin
    it: one command line for a job that is killed and started again."""

    def __post_init__(self) -> None:
        if self.stop_at is not None and self.stop_at < 1:
            raise ValueError(f"stop_at must be at least 1, got {self.stop_at}")
        if self.num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, got {self.num_processes}")
        if self.scenes is None and (self.num_processes > 1 or self.ray is not None):
            raise ValueError("num_processes and ray are for many scenes: name their folder with --scenes")
        if self.photos is not None and self.config is None and (self.run.scene, self.scenes) != (None, None):
            raise ValueError("a run is made of one thing: give photos, scene or scenes")

    @property
    def default_out(self) -> Path:
        """Where results go if nobody says."""
        source = self.run.scene if self.photos is None else str(self.photos)
        return Path("runs") / ("demo" if source is None else Path(source).resolve().stem)


def config_of(arguments: list[str]) -> Path | None:
    """The file that `--config` names: it is read before the other flags are, since they hold over it."""
    for index, word in enumerate(arguments):
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
        if word == "--config" and index + 1 < len(arguments):
            return Path(arguments[index + 1])
    return None


def read_config(path: Path) -> RunSettings:
    """The settings in a run's config.json, or in its folder."""
    file = path / "config.json" if path.is_dir() else path
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
    except OSError as error:
        raise InputError(f"--config {file} cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"--config {file} is not the config.json of a run of difix3d-train") from error
    if not isinstance(settings, dict):
        raise InputError(f"--config {file} is not the config.json of a run of difix3d-train")
    return RunSettings.from_dict(settings)
