"""The film of a run: one splat beside another along a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from difix3d.enhance.renderer import EnhancedRenderer
from difix3d.fixers.contract import resident
from difix3d.loop.targets import path_poses
from difix3d.report.pictures import labeled_pair
from media_files.video_writer import write_video
from splat_recon.scene.downscale import limited_size

if TYPE_CHECKING:
    from difix3d.enhance.renderer import Render
    from difix3d.fixers.contract import ViewFixer
    from splat_recon.scene.scene import View


VIDEO_FRAMES = 72
VIDEO_FPS = 18
VIDEO_SIZE = 640
"""Four seconds along the captured views; longer side of each half in pixels."""


def write_film(
    path: Path,
    plain: Render,
    loop: Render,
    *,
    fixer: ViewFixer | None,
    captured: Sequence[View],
    extent: float,
    batch_size: int,
) -> Iterator[tuple[int, int]]:
    """Write a film along the captured views, and yield how many frames are done, and of how many.

    Args:
        plain: Renders the splat of plain training, on the left.
        loop: Renders the loop's, on the right.
        fixer: What fixes the loop's renders; None shows them as they are.
        extent: The scene's extent in world units.
        batch_size: Most frames that the fixer gets at a time.
    """
    poses = path_poses(np.stack([view.camera.T_world_cam for view in captured]), VIDEO_FRAMES, extent=extent)
    lens = captured[0].camera
    lens = lens.resized(*limited_size(lens.width, lens.height, VIDEO_SIZE))
    cameras = [lens.with_pose(T_world_cam) for T_world_cam in poses]
    frames = []
    for start in range(0, len(cameras), batch_size):
        batch = cameras[start : start + batch_size]
        if fixer is None:
            right = [loop(camera).rgb.clamp(0, 1) for camera in batch]
        else:
            enhanced = EnhancedRenderer(loop, fixer, captured, extent=extent)
            with resident(fixer):
                right = [view.rgb for view in enhanced.fix(batch, batch_size=batch_size)]
        labels = ("plain", "loop" if fixer is None else "loop + final fix")
        for camera, picture in zip(batch, right, strict=True):
            frames.append(labeled_pair(plain(camera).rgb, picture, labels))
            yield len(frames), len(cameras)
    write_video(path, frames, rate=VIDEO_FPS, even=True)
