"""Photos whose cameras are not known yet: the first part of a run, in the run's own folder.

photos.json        the photos and the settings that were asked for, before there is a config.json
scene/             cameras, points and undistorted photos, in COLMAP's layout
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from difix3d.errors import InputError, as_input_error
from difix3d.run.run_folder import PHOTOS, SCENE
from difix3d.run.settings import RunSettings
from media_files.photos import image_files
from media_files.videos import read_info
from output_files import write_text_whole
from splat_recon.io.sfm.config import SfmConfig

if TYPE_CHECKING:
    from difix3d.run.run_folder import RunFolder
    from splat_recon.io.sfm.report import SfmResult


def scene_settings(settings: RunSettings, folder: RunFolder) -> RunSettings:
    """The settings for the scene that is made of photos in a run's folder."""
    return replace(settings, scene=str(folder.path / SCENE))


def num_photos(photos: Path, most_frames: int = SfmConfig().max_frames) -> int:
    """How many photos there are; of a video, how many frames are taken at most.

    Raises:
        InputError: There is neither a folder nor a video that can be read.
    """
    if not photos.exists():
        raise InputError(f"there is no folder of photos or video {photos}")
    with as_input_error():
        if photos.is_dir():
            return len(image_files(photos, recursive=True))
        return min(most_frames, read_info(photos).num_frames or most_frames)


def record(folder: RunFolder, photos: Path, settings: RunSettings) -> None:
    """Make a run's folder, and note what it is to be made of."""
    folder.create()
    content = {"photos": str(photos.resolve()), "settings": settings.to_dict()}
    write_text_whole(folder.path / PHOTOS, json.dumps(content, indent=2) + "\n")


def recorded(folder: RunFolder) -> Path | None:
    """The photos that a run is made of; None where it was given a scene."""
    path = folder.path / PHOTOS
    if not path.is_file():
        return None
    try:
        return Path(json.loads(path.read_text(encoding="utf-8"))["photos"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not the record of a run: name another --out") from error


def has_cameras(folder: RunFolder) -> bool:
    """Whether the cameras of a run's photos are known."""
    return (folder.path / SCENE / "sparse" / "0").is_dir()


def find_cameras(folder: RunFolder, photos: Path, settings: RunSettings) -> SfmResult:
    """Find the cameras of the photos; an interrupted search goes on where it was.

    Raises:
        InputError: There are too few photos, or they do not match each other.
    """
    from splat_recon.io.sfm.reconstruct import reconstruct

    try:
        return reconstruct(photos, folder.path / SCENE, SfmConfig(seed=settings.seed))
    except InputError:
        # A run that cannot begin leaves nothing behind.
        (folder.path / PHOTOS).unlink(missing_ok=True)
        for empty in (folder.path / SCENE, folder.path):
            with suppress(OSError):
                empty.rmdir()
        raise


def search_goes_on() -> bool:
    """Whether a step of COLMAP still runs after the search was stopped: the process is then to leave by `os._exit`."""
    from splat_recon.io.sfm.reconstruct import colmap_runs

    return colmap_runs()
