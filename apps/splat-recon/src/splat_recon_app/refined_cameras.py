"""What a run tells about poses that moved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from commands import console
from splat_recon import run_folder
from splat_recon.run_folder import RunFolder

if TYPE_CHECKING:
    from splat_recon import SplatTrainer

logger = logging.getLogger(__name__)


def write_refined_cameras(trainer: SplatTrainer, run: RunFolder, names: Sequence[str]) -> None:
    """Write the refined cameras of the training photos, and say how far they moved; nothing where poses are trusted."""
    changes = trainer.pose_changes()
    if not changes:
        return
    cameras = {view.name: trainer.refined_camera(view.camera, view.name) for view in trainer.scene.select(names)}
    run_folder.write_cameras(run, cameras, trainer.scene.T_scene_colmap, refined=True)
    angles = sorted(change.rotation_deg for change in changes.values())
    shifts = sorted(change.translation for change in changes.values())
    farthest = max(changes, key=lambda name: changes[name].rotation_deg)
    text = (
        f"poses moved by {sum(angles) / len(angles):.3f} degrees and {sum(shifts) / len(shifts):.4f} scene units in "
        f"the mean, at most by {angles[-1]:.3f} ({farthest}) and {shifts[-1]:.4f}; test photos keep theirs"
    )
    logger.info(text)
    console.print(text)
