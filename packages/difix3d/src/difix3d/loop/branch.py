"""One splat in training with the novel views that it learns from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from difix3d.errors import InputError
from difix3d.fixers.batches import RenderedView
from difix3d.fixers.references import reference_cameras
from difix3d.loop.checkpoint import BranchState
from difix3d.loop.novel_views import training_mixture
from difix_model.references.poses import nearest_distances
from difix_model.references.stepping import progress_to_targets, stepped_poses
from splat_recon.scene.training_points import with_training_points
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet

if TYPE_CHECKING:
    from jaxtyping import Float64

    from difix3d.loop.config import ProgressiveConfig
    from difix3d.loop.novel_views import NovelViews
    from splat_recon.config import TrainConfig
    from splat_recon.scene.scene import Scene, View
    from splat_render.gaussians import Gaussians

logger = logging.getLogger(__name__)


class SplatBranch:
    """A splat, the captured views that it learns from, and the novel views of its newest round.

    Args:
        scene: The scene; its extent is the unit of the steps. A new splat begins with the points that two of the
            captured views see (`with_training_points`).
        captured: The views to train on and to take references from.
        trainer: A training to share until the first round, which goes on with a copy; None begins a new one.
        gaussians: Where a new one begins instead of the scene's points.
    """

    def __init__(
        self,
        scene: Scene,
        captured: Sequence[View],
        config: ProgressiveConfig,
        *,
        device: str = "cpu",
        trainer: SplatTrainer | None = None,
        gaussians: Gaussians | None = None,
    ) -> None:
        self.captured = tuple(captured)
        self.scene, points = with_training_points(scene, [view.name for view in self.captured])
        logger.info("%s", points.sentence())
        self.config = config
        self.device = device
        self.novel: NovelViews | None = None
        self.T_world_captured = np.stack([view.camera.T_world_cam for view in self.captured])
        self.T_world_novel: Float64[np.ndarray, "n 4 4"] = self.T_world_captured
        """Where novel views have come to; the captured poses before the first round."""
        self.num_rounds_learned = 0
        """Rounds of which at least one view joined the training."""
        self.progress = 0.0
        """How far novel views have come to their targets, in [0, 1]."""
        self.shares_trainer = trainer is not None
        self.trainer = trainer or new_trainer(
            self.scene, self.captured, config.train, device=device, gaussians=gaussians
        )

    @property
    def unit(self) -> float:
        """What lengths are measured in, in world units; 1 where all cameras stand at one place."""
        return 1.0 if self.config.stepping.unit == "world" else self.scene.extent or 1.0

    @property
    def _pose_weights(self) -> dict[str, float]:
        return {"extent": self.unit, "rotation_weight": self.config.stepping.rotation_weight}

    def train(self, num_steps: int) -> None:
        """Take so many steps more; none if negative."""
        self.trainer.train_until(self.trainer.step + num_steps)

    def move_toward(self, T_world_target: Float64[np.ndarray, "n 4 4"]) -> None:
        """Move the novel poses one step toward their targets."""
        stepping = self.config.stepping
        self.T_world_novel = stepped_poses(
            self.T_world_novel,
            T_world_target,
            stepping.step_distance,
            max_turn_degrees=stepping.max_turn_degrees,
            **self._pose_weights,
        )
        self.progress = progress_to_targets(
            self.T_world_captured, self.T_world_novel, T_world_target, **self._pose_weights
        )
        logger.info("novel views have come %.0f %% of their way", 100 * self.progress)

    def render_novel_views(self) -> list[RenderedView]:
        """What the splat shows at the novel poses, with the nearest captured views, whose lenses the cameras have."""
        cameras = reference_cameras(self.captured, self.T_world_novel, self.config.num_references, **self._pose_weights)
        return [RenderedView.of(camera, self.trainer.render(camera), nearest) for camera, nearest in cameras]

    def novel_distances(self) -> list[float]:
        """How far each novel pose is from the captured one that is nearest to it."""
        return nearest_distances(self.T_world_novel, self.T_world_captured, **self._pose_weights)

    def learn_from(self, novel: NovelViews) -> None:
        """Mix novel views into the training, in place of those of the round before.

        Those that the fixer did not change are left out (`rounds.learn_unchanged`), and photos take their steps. Where
        none is left, plain training goes on.
        """
        if self.shares_trainer:
            self.trainer = clone_trainer(self.trainer, self.captured, device=self.device)
            self.shares_trainer = False
        self.novel = novel
        views = self.trainer.views
        # A round does not disturb where the captured views stand in their epoch.
        position = (views.sets[0] if isinstance(views, ViewMixture) else views).state_dict()
        self.trainer.views = self._views(position)
        learns = isinstance(self.trainer.views, ViewMixture)
        self.num_rounds_learned += learns
        outcome = "" if learns else "; nothing is learned from it"
        logger.info("round %d: %s%s", novel.round_index + 1, novel.summary(), outcome)

    def _views(self, captured_position: dict[str, Any] | None = None) -> ViewSet | ViewMixture:
        novel, mixture = self.novel, self.config.mixture
        if novel is not None and not self.config.rounds.learn_unchanged:
            changed = novel.changed(mixture)
            # Each view counts as if all were there.
            mixture = replace(mixture, novel_prob=mixture.novel_prob * len(changed.views) / len(novel.views))
            novel = changed
        return training_mixture(self.captured, novel, mixture, captured_position)

    def state(self, *, whole: bool = False) -> BranchState:
        """Splat and novel views; of a training that is shared only where it stands, unless all is asked for."""
        splat = None if self.shares_trainer and not whole else self.trainer.state()
        values = {"step": self.trainer.step, "progress": self.progress, "num_rounds_learned": self.num_rounds_learned}
        return BranchState(values=values, novel=self.novel, splat=splat)

    def restore(self, state: BranchState) -> None:
        """Go back to, or on from, what `state` gave, random streams included."""
        self.novel, self.progress = state.novel, float(state.values["progress"])
        self.num_rounds_learned = int(state.values["num_rounds_learned"])
        self.T_world_novel = self.novel.T_world_cam if self.novel else self.T_world_captured
        if state.splat is not None:
            self.trainer = SplatTrainer.from_state(state.splat, self.scene, self._views(), device=self.device)
            self.shares_trainer = False
        elif not self.shares_trainer or self.trainer.step != state.values["step"]:
            raise InputError(f"the checkpoint shares a training that is to be given, at step {state.values['step']}")


def new_trainer(
    scene: Scene, captured: Sequence[View], config: TrainConfig, *, device: str, gaussians: Gaussians | None = None
) -> SplatTrainer:
    """A new training; one of a finished splat counts as many steps as done as it has degrees of view-dependent color.

    So nothing of its color is left out, where the config adds a degree per step.
    """
    trainer = SplatTrainer(scene, ViewSet.from_views(captured), config, device=device, gaussians=gaussians)
    if gaussians is not None:
        trainer.step = gaussians.sh_degree_max * config.sh_degree_every
    return trainer


def clone_trainer(trainer: SplatTrainer, captured: Sequence[View], *, device: str = "cpu") -> SplatTrainer:
    """A second training that stands where the first one does, and goes on by itself."""
    return SplatTrainer.from_state(trainer.state(), trainer.scene, ViewSet.from_views(captured), device=device)
