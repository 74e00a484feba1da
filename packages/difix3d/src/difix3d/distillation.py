"""Few photos: several splats teach one, by what they show together at places where no photo was taken.

The members, the plain splat among them, learn from the photos alone, each with its seed. Then every novel view becomes
the median of their renders, and on request a fixer's work on that. The student begins as a copy of a member and learns
from photos and novel views in one training. Without any fixer it is closer to test photos than the members
(docs/benchmarks.md): splats of few photos err at random, and the median less so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from difix3d.ensemble import EnsembleView, ensemble_view
from difix3d.errors import InputError
from difix3d.fixers.batches import RenderedView, fixed_views
from difix3d.fixers.contract import resident
from difix3d.fixers.ensemble import EnsembleFixer
from difix3d.fixers.references import reference_cameras
from difix3d.floaters import floaters
from difix3d.loop.checkpoint import BranchState
from difix3d.loop.config import FixingConfig
from difix3d.loop.novel_views import NovelViews, training_mixture
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet

if TYPE_CHECKING:
    from jaxtyping import Float64

    from difix3d.distillation_config import DistillationConfig
    from difix3d.fixers.contract import ViewFixer
    from splat_recon.config import TrainConfig
    from splat_recon.scene.scene import Scene, View
    from splat_recon.stereo.start import StereoStart
    from splat_render.cameras import Camera
    from splat_render.gaussians import Gaussians

STAGES = "distillation.json"
"""Where a checkpoint keeps how far the stages are."""

logger = logging.getLogger(__name__)


class Distillation:
    """Trains members, then the student; returns after any step and goes on when called again.

    Steps are counted over all trainings one after the other, the plain splat's not included: it is given, trained.

    Args:
        scene: The scene, with the points of structure from motion.
        captured: The views to train on and to take references from.
        T_world_novel: Where the novel views are.
        plain: The splat of plain training, which is over before the others begin.
        config: The method's constants; trainings are like the plain splat's.
        fixing: What the fixer gets.
        stereo: What stereo adds to the points; None: nothing.
        fixer: Works on what the members show together; None: nothing does.
        device: Where the splats live.
    """

    def __init__(
        self,
        scene: Scene,
        captured: Sequence[View],
        T_world_novel: Float64[np.ndarray, "n 4 4"],
        plain: SplatTrainer,
        config: DistillationConfig,
        *,
        fixing: FixingConfig | None = None,
        stereo: StereoStart | None = None,
        fixer: ViewFixer | None = None,
        device: str = "cpu",
    ) -> None:
        self.scene = scene
        self.start = scene if stereo is None else stereo.scene(scene)
        self.captured = tuple(captured)
        self.T_world_novel = T_world_novel
        self.config = config
        self.fixing = fixing or FixingConfig()
        self.stereo = stereo
        self.num_members = config.num_beside(stereo=self._stereo_helps)
        self.num_steps = config.num_steps(plain.config, stereo=self._stereo_helps)
        self.fixer = fixer
        self.device = device
        self.plain = plain
        self.trained: list[SplatTrainer] = []
        self.student: SplatTrainer | None = None
        self.novel: NovelViews | None = None
        self.num_floaters = 0
        """Floaters that were removed from the student."""

    @property
    def num_rounds_done(self) -> int:
        """1 once novel views are made."""
        return 0 if self.novel is None else 1

    @property
    def max_steps(self) -> int:
        """Steps in all."""
        return sum(self.num_steps)

    @property
    def step(self) -> int:
        """Steps that are done."""
        return sum(member.step for member in self.trained) + (self.student.step if self.student else 0)

    @property
    def stage(self) -> str:
        """Which splat is being trained: the first is the plain one, the last the one that learns from all."""
        last = self.num_members + 2
        if self.step >= self.max_steps - self.num_steps[-1]:
            return f"splat {last} of {last}"
        number = 1 + len(self.trained) + self._at_boundary
        return f"splat {min(number, last - 1)} of {last}"

    @property
    def _stereo_helps(self) -> bool:
        return self.stereo is not None and self.stereo.helps

    @property
    def _at_boundary(self) -> bool:
        newest = self.trained[-1] if self.trained else self.plain
        return newest.step == newest.config.max_steps

    @property
    def members(self) -> list[SplatTrainer]:
        """The splats that teach, as far as they are begun; the first is the one with stereo, where that helps."""
        return [*self.trained, self.plain] if self._stereo_helps else [self.plain, *self.trained]

    @property
    def trainer(self) -> SplatTrainer:
        """The student; before there is one, the newest splat."""
        return self.student or [self.plain, *self.trained][-1]

    def train_until(self, step: int) -> None:
        """Go on until so many steps are done; novel views are made when the student begins.

        Raises:
            ValueError: The plain splat's training is not over.
        """
        plain = self.plain
        if plain.step < plain.config.max_steps:
            raise ValueError(f"the plain splat is at step {plain.step} of {plain.config.max_steps}: train it first")
        while self.step < min(step, self.max_steps):
            trainer = self._current()
            before = self.step
            trainer.train_until(min(trainer.config.max_steps, trainer.step + step - before))
            if trainer is self.student and self.step == self.max_steps:
                self._remove_floaters(trainer)

    def _current(self) -> SplatTrainer:
        """The training that goes on, begun if need be."""
        if self.student is not None:
            return self.student
        if not self._at_boundary:
            return self.trained[-1]
        if len(self.trained) < self.num_members:
            self.trained.append(
                self._begun(self.config.member_config(self.plain.config, len(self.trained)), self._photos())
            )
            return self.trained[-1]
        if self.novel is None:
            self.novel = self._novel_views()
        views = training_mixture(self.captured, self.novel, self.config.mixture)
        copied = self.members[0].gaussians.clone() if self.config.student_start == "teacher" else None
        self.student = self._begun(self.config.student_config(self.plain.config, self.num_members), views, copied)
        return self.student

    def _remove_floaters(self, student: SplatTrainer) -> None:
        """Remove the few Gaussians that `FloaterConfig` describes."""
        extent, known = self.scene.extent or 1.0, [camera for camera, _ in self.novel_cameras()]
        found = floaters(student, [view.camera for view in self.captured], known, self.config.floaters, extent=extent)
        if found.any():
            student.remove(found)
            self.num_floaters = len(found) - len(student.gaussians)
            logger.info("%d of %d Gaussians hide places that no photo shows: removed", self.num_floaters, len(found))

    def _begun(
        self, config: TrainConfig, views: ViewSet | ViewMixture, gaussians: Gaussians | None = None
    ) -> SplatTrainer:
        config = config if self.stereo is None else self.stereo.train_config(config)
        return SplatTrainer(self.start, views, config, device=self.device, gaussians=gaussians)

    def _photos(self) -> ViewSet:
        return ViewSet.from_views(self.captured)

    def novel_cameras(self) -> list[tuple[Camera, list[View]]]:
        """The novel views' cameras, and the captured views that are nearest to each."""
        extent = self.scene.extent or 1.0
        return reference_cameras(self.captured, self.T_world_novel, self.fixing.num_references, extent=extent)

    def _novel_views(self) -> NovelViews:
        """What the members show together, and the fixer makes of it."""
        renderer = self.trained[-1]
        rendered = [
            RenderedView.of(camera, renderer.render(camera), references) for camera, references in self.novel_cameras()
        ]
        teacher = EnsembleFixer(
            [member.render for member in self.members if member is not renderer],
            with_request=True,
            combine=self.config.combine,
            fixer=self.fixer,
            contradiction=self.config.contradiction,
        )
        with resident(teacher):
            fixed = list(fixed_views(teacher, rendered, batch_size=self.fixing.fix_batch_size))
        novel = NovelViews.of(0, rendered, fixed)
        logger.info("%d novel views from %d splats: %s", len(fixed), len(self.members), novel.summary())
        return novel

    def together(self, camera: Camera) -> EnsembleView:
        """What the members show together."""
        return ensemble_view([member.render(camera) for member in self.members], self.config.combine)

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs to go on as if nothing had happened; the plain splat is the caller's."""
        folder.mkdir(parents=True, exist_ok=True)
        for index, member in enumerate(self.trained):
            member.save(folder / f"member_{index}")
        if self.student is not None and self.novel is not None:
            BranchState(values={}, novel=self.novel, splat=self.student.state()).write(folder / "student")
        state = {
            "members": len(self.trained),
            "student": self.student is not None,
            "floaters": self.num_floaters,
        }
        (folder / STAGES).write_text(json.dumps(state) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from a folder that `save` wrote; everything given must be as it was."""
        try:
            state = json.loads((folder / STAGES).read_text(encoding="utf-8"))
            num_members, has_student = int(state["members"]), bool(state["student"])
            self.num_floaters = int(state.get("floaters", 0))
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"checkpoint {folder} cannot be read ({error}): resume from another one") from error
        self.trained = [
            SplatTrainer.load(folder / f"member_{index}", self.start, self._photos(), device=self.device)
            for index in range(num_members)
        ]
        if has_student:
            saved = BranchState.read(folder / "student")
            self.novel = saved.novel
            if self.novel is None or saved.splat is None:
                raise InputError(f"checkpoint {folder} holds no novel views or no splat: resume from another one")
            views = training_mixture(self.captured, self.novel, self.config.mixture)
            self.student = SplatTrainer.from_state(saved.splat, self.start, views, device=self.device)
