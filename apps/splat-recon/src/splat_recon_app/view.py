"""`splat-recon view`: a run or a splat file in the browser; a run that is still training is followed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from commands import console, logging_to
from splat_recon import InputError
from splat_recon.io.own_runs import is_splat_run, scene_of_run, splat_in_training
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.sources import opened

if TYPE_CHECKING:
    from splat_recon import SplatModel, SplatViewer
    from splat_render import Camera, RenderOutput
    from splat_render.files.folders import Which

SECONDS_BETWEEN_LOOKS = 1.0
"""Between two looks for a newer checkpoint."""


def view(args: cli.View) -> int:
    """Serve the page until Ctrl-C."""
    with logging_to(None):
        from splat_recon import SplatViewer
        from splat_recon.pages.viewer import serve, thumbnails

        found = opened(args.splat, args.which, cameras=args.cameras, device=args.device)
        scene = scene_of_run(args.splat) if args.splat.is_dir() else None
        photos = {} if scene is None else thumbnails(scene / "images", list(found.cameras))
        with SplatViewer(f"splat-recon: {args.splat}", found.cameras, photos, host=args.host, port=args.port) as viewer:
            shown = FollowedRun(args.splat, found.splats, viewer, which=args.which)
            viewer.offer_browser_splats(found.splats.gaussians)
            console.print(f"look at {viewer.url}; Ctrl-C ends it")
            print(viewer.url, flush=True)
            try:
                serve(viewer, shown.render, between=shown.look)
            except KeyboardInterrupt:
                console.print("closed")
    return 0


class FollowedRun:
    """Splats on a page, and of a run always those of its newest checkpoint.

    Args:
        path: What `--splat` names.
        which: Of a run of difix3d-train, which of its splats.
    """

    def __init__(self, path: Path, splats: SplatModel, viewer: SplatViewer, *, which: Which = "best") -> None:
        self.splats = splats
        self._viewer = viewer
        self._path = path
        self._which: Which = which
        self._run = RunFolder(path) if is_splat_run(path) else None
        self._shown = self._newest()
        self._follows = self._shown is not None
        self._looked_at = time.monotonic()
        self._say()

    def render(self, camera: Camera) -> RenderOutput:
        """What the newest splats show."""
        return self.splats.render(camera)

    def look(self) -> None:
        """Show a newer checkpoint, where there is one."""
        if not self._follows or time.monotonic() - self._looked_at < SECONDS_BETWEEN_LOOKS:
            return
        self._looked_at = time.monotonic()
        newest = self._newest()
        if newest is None or newest == self._shown:
            return
        from splat_recon import SplatModel

        try:
            self.splats = SplatModel.load(newest, device=self.splats.device)
        except (InputError, OSError):
            return  # It was just removed, to make room for one that comes at the next look.
        self._shown = newest
        self._say()
        self._viewer.requests.ask_again()

    def _newest(self) -> Path | None:
        """The newest checkpoint by name; what is not whole yet has another."""
        if self._run is None:
            return splat_in_training(self._path, self._which)
        return max(self._run.checkpoints.glob("step_*"), default=None, key=lambda path: path.name)

    def _say(self) -> None:
        step = "" if self.splats.step is None else f"step {self.splats.step:,}, "
        self._viewer.set_status(f"{step}{len(self.splats.gaussians):,} Gaussians, SH degree {self.splats.sh_degree}")
