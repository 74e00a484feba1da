"""The stereo start of a run: whether there is one, the photos it is matched in, and what the folder keeps of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from difix3d.errors import InputError, as_input_error
from splat_recon.io.colmap import read_scene
from splat_recon.io.images import write_photo
from splat_recon.scene.normalize import normalized
from splat_recon.stereo.config import StereoConfig
from splat_recon.stereo.picture import stereo_picture
from splat_recon.stereo.start import StereoMatching, StereoStart, load_depth_maps, save_depth_maps, wants_stereo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from difix3d.run.run_folder import RunFolder
    from difix3d.run.settings import RunSettings
    from splat_recon.scene.scene import Scene, View

logger = logging.getLogger(__name__)


def stereo_matching(settings: RunSettings, scene: Scene, captured: Sequence[View]) -> StereoMatching | None:
    """The matching for resolved settings, not begun; None where settings, photos or points want none."""
    if settings.preset != "short" or settings.start is not None:
        return None
    if not wants_stereo(settings.stereo, scene, len(captured)):
        return None
    return StereoMatching(scene, _photos(settings, captured, StereoConfig().sizes[-1]))


def _photos(settings: RunSettings, captured: Sequence[View], size: int) -> Sequence[View]:
    """The photos, read once more where they were made smaller than stereo can use."""
    if settings.scene is None or settings.max_size is None or settings.max_size >= size:
        return captured
    return normalized(read_scene(Path(settings.scene), max_size=size)).select(view.name for view in captured)


def keep_stereo(folder: RunFolder, start: StereoStart) -> None:
    """Write the depth maps for a later resume, and their picture for the report where anything is believed."""
    with as_input_error():
        save_depth_maps(folder.stereo, start.depth_maps)
        if start.helps:
            write_photo(folder.stereo_picture, stereo_picture(start.depth_maps))


def kept_stereo(folder: RunFolder) -> StereoStart | None:
    """What `keep_stereo` wrote; None where there is nothing, or nothing that can be read, which the log says."""
    if not folder.stereo.is_file():
        return None
    try:
        return StereoStart.of(load_depth_maps(folder.stereo), StereoConfig())
    except InputError as error:
        logger.warning("%s", error)
        return None
