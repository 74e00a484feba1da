"""The folder of one run: settings, metrics, checkpoints, log.

config.json        settings, what they resolved to, versions
checkpoints/       step_001000/ and so on, the last two
metrics.jsonl      one line per measurement during training
metrics.json       the comparison at the end
images/            test photos and renders, novel views of every round
plain.ply loop.ply the splats, in the frame of the COLMAP folder; best.ply is the better one
cameras.json       cameras of the training photos
stereo.npz .png    depths that trainings started from, where they did
path.mp4 report.html log.txt
photos.json scene/ of a run that began with photos: what was asked for, and their cameras
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import splat_recon.run_folder
import train_runs.run_folder
from difix3d.errors import InputError, as_input_error
from output_files import check_links, unshared

LOG = "log.txt"
"""A run's messages, the first file of a run."""

PHOTOS, SCENE = "photos.json", "scene"
"""What a run begins with that is given photos without cameras."""

KEPT_CHECKPOINTS = 2
"""A damaged newest checkpoint leaves one to go back to."""

VERSIONED = ("difix3d", "difix-model", "splat-recon", "torch", "numpy", "diffusers", "gsplat", "numba")
"""Packages whose versions a run records."""

logger = logging.getLogger(__name__)


def numbered(folder: Path) -> Path:
    """The folder itself if nothing is there, else the first free one of folder-2, folder-3 and so on."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def newest_run(folder: Path) -> Path:
    """The run of the highest number of folder, folder-2, folder-3 and so on; the first one where there is none yet."""
    pattern = re.compile(re.escape(folder.name) + r"(?:-(\d+))?")
    found = [
        (int(match[1] or 1), path)
        for path in (folder.parent.iterdir() if folder.parent.is_dir() else ())
        if (match := pattern.fullmatch(path.name)) and (path / "config.json").is_file()
    ]
    return max(found)[1] if found else folder


class RunFolder(splat_recon.run_folder.RunFolder):
    """The folder of splat-recon, with what a run of this library has beside it."""

    def check_free(self) -> None:
        """Make sure that the folder can be made. One with nothing but a log counts as new: its run could not begin.

        Photos and their cameras may be there already, where the folder says that they are this run's.
        """
        begun = {LOG, SCENE, PHOTOS} if (self.path / PHOTOS).is_file() else {LOG}
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} - begun:
            if (self.path / "config.json").is_file():
                raise InputError(f"{self.path} holds a run already: name another --out, or go on with --resume")
            raise InputError(f"{self.path} is not empty: name another --out")
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: name another --out")
        parent = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise InputError(f"{self.path} cannot be made, {parent} is not a writable folder: name another --out")

    def check_links(self) -> None:
        """Make sure that no folder in this one is a link that leads out of it."""
        check_links(self.path)

    def create(self) -> None:
        """Make the folder."""
        self.check_free()
        with as_input_error():
            self.path.mkdir(parents=True, exist_ok=True)

    def discard(self) -> None:
        """Remove a folder that holds nothing but a log, of a run that could not begin."""
        if {path.name for path in self.path.iterdir()} <= {LOG}:
            shutil.rmtree(self.path)

    def write_configs(self, settings: dict[str, Any], resolved: dict[str, Any], config: dict[str, Any]) -> None:
        """Record what was asked for, what it came to for the device and the photos, and in full, and the versions."""
        versions = train_runs.run_folder.versions(VERSIONED)
        self.write_json(
            "config.json", {"settings": settings, "resolved": resolved, "config": config, "versions": versions}
        )

    def read_settings(self) -> dict[str, Any]:
        """The settings that `write_config` recorded, or where it has not yet those that came with the photos."""
        photos_only = (self.path / PHOTOS).is_file() and not (self.path / "config.json").is_file()
        try:
            name = PHOTOS if photos_only else "config.json"
            settings = json.loads((self.path / name).read_text(encoding="utf-8"))["settings"]
        except OSError as error:
            raise InputError(f"there is no run in {self.path} to resume ({error})") from error
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{self.path / 'config.json'} is not the configuration of a run: name another") from error
        if not isinstance(settings, dict):
            raise InputError(f"{self.path / 'config.json'} is not the configuration of a run: name another")
        return settings

    def read_resolved(self) -> dict[str, Any]:
        """What the settings that were not given came to when the run began; empty where that is not recorded."""
        try:
            resolved = json.loads((self.path / "config.json").read_text(encoding="utf-8"))["resolved"]
        except (OSError, KeyError, TypeError, ValueError, RecursionError):
            return {}
        return resolved if isinstance(resolved, dict) else {}

    def write_checkpoint(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a checkpoint's folder, which appears only when complete; older ones but one are removed."""
        from train_runs.checkpoints import remove_older, write_checkpoint

        folder = self.checkpoint(step)
        with as_input_error():
            write_checkpoint(folder, {"step": step}, {}, write_more=write)
            remove_older(folder, KEPT_CHECKPOINTS)
        return folder

    def recover(self) -> Path | None:
        """The newest valid checkpoint, for a run that goes on: damaged ones of later steps are set aside.

        Raises:
            InputError: There are checkpoints and none is valid, or they cannot be put in order.
        """
        from train_runs.checkpoints import put_in_order

        return put_in_order(self)

    @contextmanager
    def logging_to_file(self) -> Iterator[None]:
        """Send what the libraries log to log.txt as long as the block lasts."""
        handler = logging.FileHandler(unshared(self.path / LOG), encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        loggers = [logging.getLogger(name) for name in ("difix3d", "splat_recon", "difix_model", "colmap_models")]
        for each in loggers:
            each.addHandler(handler)
            each.setLevel(logging.INFO)
        try:
            yield
        finally:
            for each in loggers:
                each.removeHandler(handler)
            handler.close()
