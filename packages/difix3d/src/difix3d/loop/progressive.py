"""The progressive method: train a splat, fix what it shows at novel views, and train on that too.

This is the page to read first. Where some captured views are validation photos, a second branch, trained without
them, goes through the same rounds; its score on them tells the rollback policy whether to keep what was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from difix3d.loop.branch import SplatBranch
from difix3d.loop.confidence import PixelConfidence
from difix3d.loop.fixing import fix_round
from difix3d.loop.loop_state import COUNTS, load_loop, write_loop
from difix3d.loop.novel_views import NovelViews
from difix3d.loop.rollback import Action, RollbackPolicy
from difix3d.loop.schedule import Event, events
from difix3d.loop.snapshots import Snapshots
from difix3d.loop.validation_views import held_back_views
from splat_recon.evaluate import evaluate

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64

    from difix3d.fixers.contract import ViewFixer
    from difix3d.loop.config import ProgressiveConfig
    from splat_recon.scene.scene import Scene, View
    from splat_recon.trainer import SplatTrainer
    from splat_render.gaussians import Gaussians


class ProgressiveTrainer:
    """Trains a splat with fixed novel views; `train_until` returns, and goes on when called again.

    Args:
        scene: The scene; its extent is the unit of lengths.
        captured: The views to train on and to take references from.
        T_world_target: Poses that novel views move toward.
        fixer: What improves the rendered views.
        config: The method's constants.
        device: Where the splat lives.
        trainer: A training of the same views, shared up to the first round or rollback and left as it is from then on;
            None begins one.
        gaussians: A finished splat to begin with instead of the scene's points.
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
        gaussians: Gaussians | None = None,
    ) -> None:
        self.captured, self.T_world_target = tuple(captured), T_world_target
        self.fixer, self.config = fixer, config
        self.held_back, others = held_back_views(self.captured, config.validation, extent=scene.extent or 1.0)
        self.events = events(config, validates=bool(self.held_back))
        self.main = SplatBranch(scene, self.captured, config, device=device, trainer=trainer, gaussians=gaussians)
        self.validation: SplatBranch | None = None
        if self.held_back:
            self.validation = SplatBranch(scene, others, config, device=device, gaussians=gaussians)
        self.policy, self.snapshots = RollbackPolicy(config.validation), Snapshots()
        self.step = self.main.trainer.step
        self.num_rounds_done = self.num_events_done = 0

    @property
    def branches(self) -> tuple[SplatBranch, ...]:
        """The splat of all views, and where there is validation the one that does without the validation photos."""
        return (self.main,) if self.validation is None else (self.main, self.validation)

    @property
    def trainer(self) -> SplatTrainer:
        """The splat's training; its step is less than the loop's where steps were undone, or training stopped early."""
        return self.main.trainer

    def train_until(self, step: int) -> None:
        """Go on up to a step, with every round and validation that is due on the way, those at this step included."""
        if self.main.shares_trainer and self.trainer.step != self.step:
            raise ValueError(f"the training that is shared is at step {self.trainer.step}, the loop at {self.step}")
        for event in self.events[self.num_events_done :]:
            if event.step > step:
                break
            self._train(event.step)
            action = "round" if self.validation is None else self._validate(event, self.validation)
            if action == "round":
                for branch in self.branches:
                    self._make_round(branch)
                self.num_rounds_done += 1
            self.num_events_done += 1
        self._train(step)

    def _train(self, step: int) -> None:
        for branch in self.branches if not self.policy.stopped else ():
            branch.train(step - self.step)
        self.step = max(step, self.step)

    def _make_round(self, branch: SplatBranch) -> None:
        """Move the novel poses a step, render what the splat shows there, fix it, and mix it into the training."""
        branch.move_toward(self.T_world_target)
        rendered = branch.render_novel_views()
        fixed = fix_round(self.fixer, rendered, branch.novel_distances(), self.config)
        confidence = PixelConfidence(branch.captured, branch.trainer.render, self.config, unit=branch.unit)
        branch.learn_from(NovelViews.of(self.num_rounds_done, rendered, fixed, confidence))

    def _validate(self, event: Event, validation: SplatBranch) -> Action | None:
        """Score the splat that did without the validation photos, undo what lowered the score, and say what is next."""
        if self.policy.stopped:
            return None
        psnr = evaluate(lambda camera: validation.trainer.render(camera).rgb, self.held_back).psnr
        verdict = self.policy.record(psnr, step=event.step, splat_step=validation.trainer.step)
        action = self.policy.next_action(planned=event.is_round, possible=event.may_be_round)
        if verdict == "undone":
            self.snapshots.restore(self.branches, best=action is None or event.is_last)
        else:
            self.snapshots.keep(self.branches, best=verdict == "best")
        return action

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on as if nothing had happened; of a shared training only its step."""
        self.snapshots.write(folder / "snapshots")
        state = {name: getattr(self, name) for name in COUNTS} | {"policy": self.policy.state_dict()}
        write_loop(folder, self.branches, state)

    def load(self, folder: Path) -> None:
        """Go on from a folder that `save` wrote; everything given must be as it was."""
        state = load_loop(folder, self.branches, num_events=len(self.events))
        self.snapshots.read(folder / "snapshots")
        self.policy.load_state_dict(state["policy"])
        for name in COUNTS:
            setattr(self, name, state[name])
