"""What a report says about its run, beside the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from difix3d.loop.schedule import round_steps
from difix3d.loop.target_config import FileTargets, HeldOutTargets

if TYPE_CHECKING:
    from difix3d.loop.config import ProgressiveConfig
    from difix3d.loop.novel_views import NovelViews
    from difix3d.loop.rollback import RollbackPolicy
    from difix3d.run.settings import RunSettings
    from splat_recon.scene.splits import Split
    from splat_recon.scene.training_points import TrainingPoints


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RunFacts:
    """What a run was, and what became of it."""

    scene_name: str
    settings: RunSettings
    """Resolved settings."""

    config: ProgressiveConfig
    """What they came to."""

    split: Split
    """Which views were trained on and which were held out."""

    points: TrainingPoints | None
    """Which of the scene's points the trainings began with; None where they began with a finished splat."""

    num_rounds: int
    """Rounds that were done."""

    num_rounds_learned: int
    """Rounds whose views the splat learned from: those that were neither undone nor left as they were rendered."""

    novel: NovelViews | None
    """The newest round's views that the splat learned from."""

    fixed: bool
    """Whether there was a fixer."""

    step: int
    """Steps of the loop; with distillation those of all its trainings together, the plain one's included."""

    splat_step: int
    """Steps of the loop's splat; fewer than `step` where some were undone or not taken."""

    policy: RollbackPolicy | None = None
    """What the scores on validation photos led to, where there were some."""

    held_back: tuple[str, ...] = ()
    """Names of those views."""

    file_has_test_poses: bool = False
    """Whether the targets are those of a file in which poses of test photos are."""

    stereo: str | None = None
    """What came of stereo, in a sentence; None where there was none."""

    parts: dict[str, float] = field(default_factory=dict)
    """With distillation, PSNR on test photos of what it is made of."""

    transparency: float = 0.0
    """Fraction of the light in the loop's test views that comes from the background, in [0, 1]."""

    missing: float = 0.0
    """The part of that where the photo shows something else: a backdrop of that color is not missing, nor is what masks
    leave out."""

    one_place: bool = False
    """Whether all training photos were taken from about one place."""

    num_floaters: int = 0
    """Floaters that were removed from the splat that learned from the others."""

    progress: float = 0.0
    """How far the splat's novel views came to their targets, in [0, 1]."""

    @property
    def holds_out(self) -> bool:
        """Whether photos were held out; else results are of training photos."""
        return bool(self.split.test)

    @property
    def side(self) -> str:
        """What the photos are that results are of: test, or training where none was held out."""
        return "test" if self.holds_out else "training"

    @property
    def distilled(self) -> bool:
        """Whether the loop was distillation."""
        return self.settings.loop == "distillation"

    @property
    def num_novel(self) -> int:
        """Novel views of the newest round."""
        return len(self.novel.views) if self.novel else 0

    @property
    def saw_test_poses(self) -> bool:
        """Whether novel views moved toward the poses of the test photos."""
        targets = self.config.targets
        known = isinstance(targets, HeldOutTargets) or (isinstance(targets, FileTargets) and self.file_has_test_poses)
        return known and self.num_rounds > 0

    @property
    def round_steps(self) -> tuple[int, ...]:
        """Steps of the rounds; distillation has none."""
        return () if self.distilled else round_steps(self.config)
