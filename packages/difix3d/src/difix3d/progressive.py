"""The progressive method: train a splat, fix what it shows from new places, and train on that too.

This is the page to read first. A round moves the novel poses one step from the captured views toward their targets,
renders them, lets the fixer improve the renders with the nearest captured photo at hand, and mixes the fixed views
into the splat's training, with a small weight and only where the render was opaque. Only the last round's views are
kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from difix3d import checkpoint
from difix3d.enhance import fixed_renders, nearest_views
from difix3d.novel_views import NovelView, NovelViews
from difix3d.schedule import Round, rounds, wanted_steps
from difix3d.stepping import stepped_poses
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet

if TYPE_CHECKING:
    from jaxtyping import Float64

    from difix3d.config import ProgressiveConfig
    from difix3d.fixers import ViewFixer
    from splat_recon.scene.scene import Scene, View


logger = logging.getLogger(__name__)


class ProgressiveTrainer:
    """Trains a splat with fixed novel views; returns after any step and goes on when called again.

    With no round in the schedule, and up to the first one, it is the splat's plain training, bit for bit.

    Args:
        scene: The scene; its extent is the unit of the steps.
        captured: The views to train on and to take references from.
        T_world_target: Poses that novel views move toward.
        fixer: What improves the rendered views.
        config: The method's constants.
        device: Where the splat lives.
        trainer: A splat whose training has begun; None begins a new one.
    """

    def __init__(
        self,
        scene: Scene,
        captured: Sequence[View],
        T_world_target: Float64[np.ndarray, "n 4 4"],
        fixer: ViewFixer,
        config: ProgressiveConfig,
        *,
        device: str = "cpu",
        trainer: SplatTrainer | None = None,
    ) -> None:
        self.scene = scene
        self.captured = tuple(captured)
        self.T_world_target = T_world_target
        self.fixer = fixer
        self.config = config
        self.rounds = rounds(config.rounds, max_steps=config.train.max_steps, min_remaining=config.min_remaining)
        num_left_out = len(wanted_steps(config.rounds, max_steps=config.train.max_steps)) - len(self.rounds)
        if num_left_out:
            logger.warning("%d rounds are left out: too little of the run follows to learn from them", num_left_out)
        self.num_rounds_done = 0
        self.T_world_novel = np.stack([view.camera.T_world_cam for view in self.captured])
        self.novel: NovelViews | None = None
        self.trainer = trainer or SplatTrainer(scene, ViewSet.from_views(self.captured), config.train, device=device)

    @property
    def extent(self) -> float:
        """The scene's extent in world units, the unit of steps; 1 where all cameras stand at one place."""
        return self.scene.extent or 1.0

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.trainer.step

    def train_until(self, step: int) -> None:
        """Train up to a step, with every round that is due on the way; a round due at this very step is done too."""
        for round_ in self.rounds[self.num_rounds_done :]:
            if round_.start_step > step:
                break
            self.trainer.train_until(round_.start_step)
            self._fix_novel_views(round_)
        self.trainer.train_until(step)

    def _fix_novel_views(self, round_: Round) -> None:
        stepping, mixture = self.config.stepping, self.config.mixture
        self.T_world_novel = stepped_poses(
            self.T_world_novel,
            self.T_world_target,
            stepping.step_distance,
            extent=self.extent,
            rotation_weight=stepping.rotation_weight,
        )
        references = nearest_views(
            self.captured,
            self.T_world_novel,
            extent=self.extent,
            rotation_weight=stepping.rotation_weight,
        )
        cameras = [view.camera.with_pose(T) for view, T in zip(references, self.T_world_novel, strict=True)]
        outputs = [self.trainer.render(camera) for camera in cameras]
        rendered = [output.rgb.clamp(0, 1) for output in outputs]
        fixed = fixed_renders(self.fixer, rendered, references, batch_size=self.config.fix_batch_size)
        self.novel = NovelViews(
            round_index=round_.index,
            views=tuple(
                NovelView(camera=camera, reference_name=view.name, rendered=rgb, fixed=better, alpha=output.alpha)
                for camera, view, rgb, better, output in zip(cameras, references, rendered, fixed, outputs, strict=True)
            ),
        )
        self.num_rounds_done += 1
        novel_set = self.novel.view_set(weight=mixture.novel_weight, alpha_threshold=mixture.alpha_threshold)
        captured_set = ViewSet.from_views(self.captured, weight=mixture.captured_weight)
        captured_set.load_state_dict(self._captured_position())
        self.trainer.views = captured_set.mixed_with(novel_set, mixture.novel_prob) if novel_set else captured_set

    def _captured_position(self) -> dict[str, object]:
        """Where the captured views stand in their epoch, which a round does not disturb."""
        views = self.trainer.views
        return (views.sets[0] if isinstance(views, ViewMixture) else views).state_dict()

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs to go on as if nothing had happened."""
        checkpoint.save_progress(folder, self.trainer, self.novel, num_rounds_done=self.num_rounds_done)

    def load(self, folder: Path, *, device: str = "cpu") -> None:
        """Go on from a folder that `save` wrote; scene, views, targets and config must be those of the saved run.

        Raises:
            InputError: The folder is incomplete, or of a run with other rounds.
        """
        mixture = self.config.mixture
        novel, self.num_rounds_done = checkpoint.load_novel_views(folder, num_rounds=len(self.rounds))
        views: ViewSet | ViewMixture = ViewSet.from_views(self.captured)
        if self.num_rounds_done:
            views = ViewSet.from_views(self.captured, weight=mixture.captured_weight)
        if novel is not None:
            self.T_world_novel = novel.T_world_cam
            novel_set = novel.view_set(weight=mixture.novel_weight, alpha_threshold=mixture.alpha_threshold)
            views = views.mixed_with(novel_set, mixture.novel_prob) if novel_set else views
        self.novel = novel
        self.trainer = checkpoint.load_splat(folder, self.scene, views, device=device)


def forked(trainer: SplatTrainer, captured: Sequence[View], *, device: str = "cpu") -> SplatTrainer:
    """A second training that stands where the first one does and goes its own way from there."""
    with TemporaryDirectory() as folder:
        trainer.save(Path(folder) / "splat")
        return SplatTrainer.load(Path(folder) / "splat", trainer.scene, ViewSet.from_views(captured), device=device)
