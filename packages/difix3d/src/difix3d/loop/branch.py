"""One splat in training with the novel views that it learns from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from difix3d.enhance.renderer import nearest_views
from difix3d.fixers.batches import RenderedView, fix_round
from difix3d.loop import checkpoint
from difix3d.loop.confidence import NUM_REPROJECTED, TrustJudge
from difix3d.loop.coverage import weakly_seen
from difix3d.loop.novel_views import NovelView, NovelViews, Pool, pool_view_set, pooled
from difix3d.loop.target_config import CoverageTargets
from difix_model.references.poses import nearest_distances, ranked_poses
from difix_model.references.stepping import progress_to_targets, stepped_poses
from splat_recon.scene.training_points import with_training_points
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet

if TYPE_CHECKING:
    from jaxtyping import Float64

    from difix3d.fixers.contract import ViewFixer
    from difix3d.loop.config import ProgressiveConfig
    from splat_recon.config import TrainConfig
    from splat_recon.scene.scene import Scene, View
    from splat_render.gaussians import Gaussians

logger = logging.getLogger(__name__)


class Track:
    """A splat, the captured views that it learns from, and its pool of novel views.

    Args:
        scene: The scene; its extent is the unit of the steps. A new splat begins with the points that two of the
            captured views see (`with_training_points`).
        captured: The views to train on and to take references from.
        config: The method's constants.
        device: Where the splat lives.
        trainer: A splat whose training has begun; None begins a new one.
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
        self.pool: Pool = ()
        self.T_world_novel = self._captured_poses()
        self.progress = 0.0
        """How far novel views have come to their targets, in [0, 1]."""
        self.trainer = trainer or begun(self.scene, self.captured, config.train, device=device, gaussians=gaussians)

    def _captured_poses(self) -> Float64[np.ndarray, "n 4 4"]:
        return np.stack([view.camera.T_world_cam for view in self.captured])

    @property
    def unit(self) -> float:
        """What lengths are measured in, in world units; 1 where all cameras stand at one place."""
        return 1.0 if self.config.stepping.unit == "world" else self.scene.extent or 1.0

    def make_round(self, round_index: int, T_world_target: Float64[np.ndarray, "n 4 4"], fixer: ViewFixer) -> None:
        """Move the novel poses one step, render and fix what the splat shows there, and mix it into the training."""
        stepping = self.config.stepping
        T_world_target = self._chosen(T_world_target)
        self.T_world_novel = stepped_poses(
            self.T_world_novel,
            T_world_target,
            stepping.step_distance,
            extent=self.unit,
            rotation_weight=stepping.rotation_weight,
            max_turn_degrees=stepping.max_turn_degrees,
        )
        self.progress = progress_to_targets(
            self._captured_poses(),
            self.T_world_novel,
            T_world_target,
            extent=self.unit,
            rotation_weight=stepping.rotation_weight,
        )
        logger.info("round %d: novel views have come %.0f %% of their way", round_index + 1, 100 * self.progress)
        self.pool = pooled(self.pool, self._novel_views(round_index, fixer), self.config.pool)
        self.trainer.views = self._views(self._captured_position())

    def _novel_views(self, round_index: int, fixer: ViewFixer) -> NovelViews:
        """What the splat shows where novel poses are, fixed with the nearest captured photos."""
        num_references = self.config.num_references
        weights = {"extent": self.unit, "rotation_weight": self.config.stepping.rotation_weight}
        num_ranked = max(num_references, NUM_REPROJECTED)
        ranked = ranked_poses(self.T_world_novel, self._captured_poses(), num_ranked, **weights)
        lenses = [self.captured[nearest].camera for nearest in ranked[:, 0]]
        cameras = [lens.with_pose(T) for lens, T in zip(lenses, self.T_world_novel, strict=True)]
        outputs = [self.trainer.render(camera) for camera in cameras]
        rendered = [
            RenderedView.of(camera, output, [self.captured[index] for index in row[:num_references]])
            for camera, output, row in zip(cameras, outputs, ranked, strict=True)
        ]
        fixed = fix_round(
            fixer,
            rendered,
            distances=nearest_distances(self.T_world_novel, self._captured_poses(), **weights),
            batch_size=self.config.fix_batch_size,
            num_probe_views=self.config.num_probe_views,
            min_alpha=self.config.mixture.alpha_threshold,
        )
        judge = TrustJudge(self.captured, self.trainer.render, self.config.mixture)
        views = []
        for view, row, better, output in zip(rendered, ranked, fixed, outputs, strict=True):
            trust = judge.trust(view.camera, output, better.rgb, row[:NUM_REPROJECTED].tolist())
            factors = [factor for factor in (better.confidence, trust) if factor is not None]
            views.append(
                NovelView(
                    camera=view.camera,
                    reference_name=view.references[0].name,
                    rendered=view.rgb,
                    fixed=better.rgb.to(view.rgb),
                    alpha=output.alpha,
                    verdict=better.verdict,
                    confidence=torch.stack(factors).prod(dim=0) if factors else None,
                )
            )
        novel = NovelViews(round_index=round_index, views=tuple(views))
        logger.info("round %d: %s", round_index + 1, novel.summary())
        return novel

    def _chosen(self, T_world_target: Float64[np.ndarray, "n 4 4"]) -> Float64[np.ndarray, "m 4 4"]:
        """All targets, or those of the candidates that show what few captured views saw."""
        targets = self.config.targets
        if not isinstance(targets, CoverageTargets):
            return T_world_target
        weights = {"extent": self.unit, "rotation_weight": self.config.stepping.rotation_weight}
        lenses = nearest_views(self.captured, T_world_target, **weights)
        chosen = weakly_seen(
            [view.camera.with_pose(T) for view, T in zip(lenses, T_world_target, strict=True)],
            [view.camera for view in self.captured],
            self.trainer.render,
            targets.num_views,
            max_seen=targets.max_seen,
        )
        return T_world_target[chosen]

    def _captured_position(self) -> dict[str, object]:
        """Where the captured views stand in their epoch, which a round does not disturb."""
        views = self.trainer.views
        return (views.sets[0] if isinstance(views, ViewMixture) else views).state_dict()

    def _views(self, captured_position: dict[str, object] | None = None) -> ViewSet | ViewMixture:
        mixture = self.config.mixture
        captured_set = ViewSet.from_views(self.captured, weight=mixture.captured_weight if self.pool else 1.0)
        if captured_position is not None:
            captured_set.load_state_dict(captured_position)
        novel_set = pool_view_set(self.pool, mixture, self.config.pool)
        return captured_set.mixed_with(novel_set, mixture.novel_prob) if novel_set else captured_set

    def take_over(self, plain: SplatTrainer) -> None:
        """Go on from where a plain training of the same captured views stands, which stays as it is."""
        self.trainer = forked(plain, self.captured, device=self.device)

    def save(self, folder: Path, *, num_rounds_done: int) -> None:
        """Write splat and pool."""
        checkpoint.save_progress(
            folder, self.trainer, self.pool, num_rounds_done=num_rounds_done, progress=self.progress
        )

    def load(self, folder: Path) -> int:
        """Go back to, or on from, what `save` wrote, random streams included; returns the number of rounds done.

        Raises:
            InputError: The folder is incomplete or of another run.
        """
        self.pool, num_rounds_done, self.progress = checkpoint.load_pool(folder)
        self.T_world_novel = self.pool[-1].T_world_cam if self.pool else self._captured_poses()
        self.trainer = checkpoint.load_splat(folder, self.scene, self._views(), device=self.device)
        return num_rounds_done


def begun(
    scene: Scene, captured: Sequence[View], config: TrainConfig, *, device: str, gaussians: Gaussians | None = None
) -> SplatTrainer:
    """A new training; one of a finished splat counts as many steps as done as it has degrees of view-dependent color.

    So nothing of its color is left out, where the config adds a degree per step.
    """
    trainer = SplatTrainer(scene, ViewSet.from_views(captured), config, device=device, gaussians=gaussians)
    if gaussians is not None:
        trainer.step = gaussians.sh_degree_max * config.sh_degree_every
    return trainer


def forked(trainer: SplatTrainer, captured: Sequence[View], *, device: str = "cpu") -> SplatTrainer:
    """A second training that stands where the first one does and goes its own way from there."""
    with TemporaryDirectory() as folder:
        trainer.save(Path(folder) / "splat")
        return SplatTrainer.load(Path(folder) / "splat", trainer.scene, ViewSet.from_views(captured), device=device)
