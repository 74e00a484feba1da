"""`splat-recon view`: a run or a splat file in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from commands.logs import logging_to
from commands.progress import console
from splat_recon import run_folder
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli

if TYPE_CHECKING:
    from splat_recon.splat_model import SplatModel
    from splat_render.cameras import Camera


def view(args: cli.View) -> int:
    """Serve the page until Ctrl-C."""
    photos_folder = None
    if args.run is not None:
        settings = run_folder.read_settings(RunFolder(args.run))
        photos_folder = Path(str(settings["scene"])) / "images"
    with logging_to(None):
        from splat_recon.pages.viewer import SplatViewer, serve, thumbnails

        splats, cameras = _opened(args)
        photos = {} if photos_folder is None else thumbnails(photos_folder, list(cameras))
        title = f"splat-recon: {args.run or args.splats}"
        with SplatViewer(title, cameras, photos, host=args.host, port=args.port) as viewer:
            viewer.say(f"{len(splats.gaussians):,} Gaussians, SH degree {splats.sh_degree}")
            viewer.offer_browser_splats(splats.gaussians)
            console.print(f"look at {viewer.url}; Ctrl-C ends it")
            print(viewer.url, flush=True)
            try:
                serve(viewer, splats.render)
            except KeyboardInterrupt:
                console.print("closed")
    return 0


def _opened(args: cli.View) -> tuple[SplatModel, dict[str, Camera]]:
    from splat_recon.splat_model import SplatModel
    from splat_render.device import chosen_device

    if args.run is not None:
        from splat_recon.splat_model import SplatModel

        run = RunFolder(args.run)
        cameras, _ = run_folder.read_cameras(run)
        splats = SplatModel.newest(run.checkpoints, device=chosen_device(args.device))
        return splats, cameras
    cameras = {}
    if args.cameras is not None:
        from splat_recon.io.camera_files import read_camera_file

        file = read_camera_file(args.cameras)
        cameras = dict(zip(file.names, file.cameras, strict=True))
    splats = SplatModel.of_file(args.splats or Path(), device=chosen_device(args.device))
    return splats.without_offset(), {name: splats.near(camera) for name, camera in cameras.items()}
