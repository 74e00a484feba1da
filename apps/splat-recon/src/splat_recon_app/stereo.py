"""The stereo start of `splat-recon train`: matched once, kept with the run, and shown in its report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from commands import progress_bar
from splat_recon import InputError
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.scenes import read_scene_and_split

if TYPE_CHECKING:
    from splat_recon import Scene, Split, StereoStart, View

logger = logging.getLogger(__name__)


def stereo_start(
    args: cli.Train, scene: Scene, split: Split, run: RunFolder, max_size: int | None
) -> StereoStart | None:
    """The run's stereo start: what it kept, or matched now; None where the flags or the photos want none."""
    from splat_recon import StereoConfig, StereoMatching, StereoStart
    from splat_recon.stereo.start import load_depth_maps, wants_stereo

    if not wants_stereo(args.stereo, scene, len(split.train)):
        return None
    if args.resume and run.stereo.is_file():
        try:
            return StereoStart.of(load_depth_maps(run.stereo), StereoConfig())
        except InputError as error:
            logger.warning("%s", error)
    matching = StereoMatching(scene, _photos(args, scene, split, max_size, StereoConfig().sizes[-1]))
    with progress_bar() as bar:
        task = bar.add_task("stereo", total=matching.num_rounds, note=f"{len(split.train)} photos")
        while not matching.done:
            matching.advance()
            bar.update(task, completed=matching.num_rounds_done, total=matching.num_rounds)
    return matching.start()


def keep_stereo(run: RunFolder, start: StereoStart) -> None:
    """Write the depth maps for a later `--resume`, and their picture for the report where anything is believed."""
    from splat_recon.io.images import write_photo
    from splat_recon.stereo.picture import stereo_picture
    from splat_recon.stereo.start import save_depth_maps

    save_depth_maps(run.stereo, start.depth_maps)
    if start.helps:
        write_photo(run.stereo_picture, stereo_picture(start.depth_maps))


def _photos(args: cli.Train, scene: Scene, split: Split, max_size: int | None, wanted: int) -> tuple[View, ...]:
    """The training photos, read once more where they were made smaller than stereo can use."""
    if max_size is not None and max_size < wanted:
        scene, _ = read_scene_and_split(args.scene, args.split, args.sparse, wanted, args)
    return scene.select(split.train)
