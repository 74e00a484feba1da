"""What a run works on: scene, photos, fixer, targets, stereo, and the constants that its settings came to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from difix3d.fixers.identity import IdentityFixer
from difix3d.fixers.opening import open_fixer
from difix3d.loop.targets import target_poses
from difix3d.run.configs import progressive_config
from difix3d.run.defaults import for_photos, resolved
from difix3d.run.fixing_time import FixingTime, TimedFixer
from difix3d.run.image_memory import check_image_memory, fitting_views, picture_bytes
from difix3d.run.photos import recorded
from difix3d.run.progress import Progress
from difix3d.run.scene import load_scene
from difix3d.run.settings import BY_DEVICE, RunSettings
from difix3d.run.start import start_background, start_gaussians
from difix3d.run.stereo_start import keep_stereo, kept_stereo, stereo_matching
from output_files import check_inputs_kept
from report_pages import spread
from splat_recon.few_photos import near_plane, photo_background
from splat_recon.io.cameras_json import to_content
from splat_render.device import chosen_device

if TYPE_CHECKING:
    from difix3d.fixers.contract import ViewFixer
    from difix3d.loop.config import ProgressiveConfig
    from difix3d.run.run_folder import RunFolder
    from splat_recon.stereo.start import StereoStart
    from splat_render.gaussians import Gaussians

PHASE = "prepare"

MAX_SHOWN = 8
"""Training photos that results are shown on, where none is held out."""

logger = logging.getLogger(__name__)


class RunInputs:
    """What a run works on; `prepare` completes it, piece by piece.

    Args:
        resume: Whether the run goes on, and takes the depths that it matched before.
        fixer: What fixes; None opens what the settings name.
    """

    def __init__(
        self, asked: RunSettings, folder: RunFolder, time: FixingTime, *, resume: bool, fixer: ViewFixer | None
    ) -> None:
        if resume:
            # The same run, on whatever device it goes on.
            kept = {name: value for name, value in folder.read_resolved().items() if name in BY_DEVICE}
            asked = replace(asked, **{name: value for name, value in kept.items() if getattr(asked, name) is None})
        self.asked, self.folder, self.resume = asked, folder, resume
        self.device = chosen_device(asked.device)
        self.settings = resolved(asked, self.device)
        loaded = load_scene(self.settings)
        self.scene, self.split, self.points = loaded.scene, loaded.split, loaded.points
        photos = recorded(folder)
        if photos is not None:
            # Cameras that were found for photos lie in the run: its name is theirs.
            self.scene = replace(self.scene, name=photos.stem)
        check_inputs_kept([folder.path / "config.json"], self.scene.sources)
        self.captured = self.scene.select(self.split.train)
        # Where nothing is held out, results are shown on some of the training photos, and said to be.
        self.held_out = self.scene.select(self.split.test) or [
            self.captured[index] for index in spread(len(self.captured), MAX_SHOWN)
        ]
        self.settings = for_photos(
            self.settings,
            len(self.captured),
            background=photo_background(self.captured),
            start_background=start_background(self.settings),
        )
        self.config = self._config()
        self._fit_novel_views()
        self.stereo: StereoStart | None = None
        self._given_fixer, self._time = fixer, time

    def prepare(self) -> Iterator[Progress]:
        """Open the fixer, place the targets, match stereo, and record what everything came to."""
        yield Progress(phase=PHASE, done=1, total=3, note="fixer")
        # A GPU that gsplat has no compiler for still runs the network: its device is chosen by itself.
        opened = self._given_fixer or open_fixer(self.settings.fixer, device=self.asked.device)
        self.has_fixer = not isinstance(opened, IdentityFixer)
        self.fixer = TimedFixer(opened, self._time)
        self.T_world_target = target_poses(
            self.config.targets,
            np.stack([view.camera.T_world_cam for view in self.captured]),
            np.array([view.camera.T_world_cam for view in self.scene.select(self.split.test)]).reshape(-1, 4, 4),
            extent=self.extent,
            generator=np.random.default_rng(self.config.seed),
            scene=self.scene,
        )
        num_targets, num_held_out = len(self.T_world_target), len(self.held_out)
        needed = picture_bytes(self.config, self.captured, num_targets=num_targets, num_held_out=num_held_out)
        check_image_memory(needed, self.settings.image_memory)
        yield Progress(phase=PHASE, done=2, total=3, note="splat")
        yield from self._match_stereo()
        if not self.resume:
            self.folder.write_configs(self.asked.to_dict(), self.settings.to_dict(), asdict(self.config))
            cameras = {view.name: view.camera for view in self.captured}
            self.folder.write_json("cameras.json", to_content(cameras, self.scene.T_scene_colmap))
        if self.stereo is not None and not self.folder.stereo.is_file():
            keep_stereo(self.folder, self.stereo)

    @property
    def distills(self) -> bool:
        """Whether the loop is distillation."""
        return self.settings.loop == "distillation"

    @property
    def stereo_helps(self) -> bool:
        """Whether stereo found points."""
        return self.stereo is not None and self.stereo.helps

    @property
    def extent(self) -> float:
        """The scene's extent in world units; 1 where all cameras stand at one place."""
        return self.scene.extent or 1.0

    @property
    def max_steps(self) -> int:
        """Steps of each training; with distillation those of plain training and of all its own together."""
        train = self.config.train
        if not self.distills:
            return train.max_steps
        return train.max_steps + sum(self.settings.distillation.num_steps(train, stereo=self.stereo_helps))

    def start_gaussians(self) -> Gaussians | None:
        """The finished splat to begin with, if one was named."""
        return None if self.settings.start is None else start_gaussians(self.settings, self.scene)

    def _config(self) -> ProgressiveConfig:
        """That of the settings, which for few photos draws nothing nearer than their points suggest."""
        config = progressive_config(self.settings)
        near = near_plane(self.captured, self.scene.points) if self.settings.regularized else None
        return config if near is None else replace(config, train=replace(config.train, render_near=near))

    def _fit_novel_views(self) -> None:
        """Distill from fewer novel views where the default number does not fit into the memory for images."""
        if not self.distills or self.asked.num_novel is not None or self.settings.num_novel is None:
            return
        number = fitting_views(
            self.config,
            self.captured,
            num_held_out=len(self.held_out),
            image_memory=self.settings.image_memory,
            most=self.settings.num_novel,
        )
        if number < self.settings.num_novel:
            logger.warning("%d novel views instead of %d fit into --image-memory", number, self.settings.num_novel)
            self.settings = replace(self.settings, num_novel=number)
            self.config = self._config()

    def _match_stereo(self) -> Iterator[Progress]:
        """Depths of the photos, or what an earlier part of the run kept of them.

        Plain training and rounds start from them; distillation has splats with and without.
        """
        matching = stereo_matching(self.settings, self.scene, self.captured)
        if matching is None:
            return
        self.stereo = kept_stereo(self.folder) if self.resume else None
        if self.stereo is None:
            while not matching.done:
                matching.advance()
                yield Progress(phase="stereo", done=matching.num_rounds_done, total=matching.num_rounds)
            self.stereo = matching.start()
        if not self.distills:
            self.scene = self.stereo.scene(self.scene)
            self.config = replace(self.config, train=self.stereo.train_config(self.config.train))
