"""The progressive method: train a splat, fix what it shows from new places, and train on that too.

This is the page to read first. A round moves the novel poses one step from the captured views toward their targets,
renders them, lets the fixer improve the renders with the nearest captured photo at hand, and mixes the fixed views
into the splat's training, with a small weight and only where the render was opaque (`track`).

Where captured views are held back, a second splat, the probe, does all the same without them, and is scored on them at
every round and in between. What lowers the score is undone in both, and when nothing helps any more training stops
with the best state (`watch`). On request the probe is compared with a third splat, the control, that learns without
rounds: then only rounds are undone, and their steps are taken again.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from difix3d.errors import InputError
from difix3d.loop.branch import Track, forked
from difix3d.loop.rollback import Check, Mark, Watch, held_back_indices, marks
from difix3d.loop.schedule import rounds, wanted_steps
from splat_recon.evaluate import evaluate
from splat_recon.trainer import SplatTrainer

if TYPE_CHECKING:
    from jaxtyping import Float64

    from difix3d.fixers.contract import ViewFixer
    from difix3d.loop.config import ProgressiveConfig
    from difix3d.loop.novel_views import NovelViews
    from splat_recon.scene.scene import Scene, View
    from splat_render.gaussians import Gaussians

__all__ = ["ProgressiveTrainer", "forked"]

WATCH = "watch.json"
"""Where a checkpoint keeps the checks."""

BEFORE_ROUND, BEFORE_ROUNDS = "before_round", "before_rounds"
"""States to go back to where rounds are undone one by one: before the last one, and before all that are in effect."""

logger = logging.getLogger(__name__)


class ProgressiveTrainer:
    """Trains a splat with fixed novel views; returns after any step and goes on when called again.

    With no round in the schedule and nothing held back, and up to the first round, it is the splat's plain training,
    bit for bit.

    Args:
        scene: The scene; its extent is the unit of the steps.
        captured: The views to train on and to take references from.
        T_world_target: Poses that novel views move toward.
        fixer: What improves the rendered views.
        config: The method's constants.
        device: Where the splat lives.
        trainer: A splat whose training has begun; None begins a new one.
        follows: A plain training of the same views. Where views are held back, and as long as the two are one and the
            same, the splat is taken from there at marks instead of being trained again; it must not lag behind.
        gaussians: A finished splat to begin with instead of the scene's points.
        states: Folder for the states to go back to, which go with the trainer; None: the system's temporary folder.
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
        follows: SplatTrainer | None = None,
        gaussians: Gaussians | None = None,
        states: Path | None = None,
    ) -> None:
        self.scene = scene
        self.captured = tuple(captured)
        self.T_world_target = T_world_target
        self.fixer = fixer
        self.config = config
        max_steps = config.train.max_steps
        self.rounds = rounds(config.rounds, max_steps=max_steps, min_remaining=config.min_remaining)
        num_left_out = len(wanted_steps(config.rounds, max_steps=max_steps)) - len(self.rounds)
        if num_left_out:
            logger.warning("%d rounds are left out: too little of the run follows to learn from them", num_left_out)
        self.num_rounds_done = 0
        self.num_undone_steps = 0
        self.newest_round_step: int | None = None
        self._num_marks_done = 0
        self._follows = follows
        held_back = self._held_back_names()
        if held_back:
            self._states = self._new_states(states)
        self.held_back = tuple(view for view in self.captured if view.name in held_back)
        stay = tuple(view for view in self.captured if view.name not in held_back)
        give_back = config.hold_back.give_back
        main_views = self.captured if give_back or not held_back else stay
        self.main = Track(scene, main_views, config, device=device, trainer=trainer, gaussians=gaussians)
        has_probe = held_back and give_back
        self.probe = Track(scene, stay, config, device=device, gaussians=gaussians) if has_probe else None
        has_control = held_back and config.hold_back.against == "plain"
        self.control = Track(scene, stay, config, device=device, gaussians=gaussians) if has_control else None
        """Plain training of the views that stay; while the probe has seen no novel views, the two are one."""
        self._step = self.main.trainer.step
        self.watch = Watch(config.hold_back) if held_back else None
        self.marks = marks(self.rounds, config.hold_back, max_steps=max_steps, watched=bool(held_back))
        if self.watch is not None and trainer is not None and trainer.step > 0:
            raise ValueError("with views held back the training begins with the loop: pass no trainer that has begun")

    def _new_states(self, parent: Path | None) -> Path:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        states = Path(tempfile.mkdtemp(prefix="difix3d-states-", dir=parent))
        weakref.finalize(self, shutil.rmtree, states, ignore_errors=True)
        return states

    def _held_back_names(self) -> set[str]:
        num_views = self.config.hold_back.num_views(len(self.captured))
        poses = np.stack([view.camera.T_world_cam for view in self.captured])
        return {self.captured[index].name for index in held_back_indices(poses, num_views, extent=self.extent)}

    @property
    def trainer(self) -> SplatTrainer:
        """The splat's training."""
        return self.main.trainer

    @property
    def novel(self) -> NovelViews | None:
        """The newest round's novel views that the splat learns from."""
        return self.main.pool[-1] if self.main.pool else None

    @property
    def progress(self) -> float:
        """How far novel views have come to their targets, in [0, 1]."""
        return self.main.progress

    @property
    def T_world_novel(self) -> Float64[np.ndarray, "n 4 4"]:
        """Where novel views have come to; the captured poses before the first round."""
        return self.main.T_world_novel

    @property
    def extent(self) -> float:
        """The scene's extent in world units, the unit of steps; 1 where all cameras stand at one place."""
        return self.scene.extent or 1.0

    @property
    def step(self) -> int:
        """Steps of the run: those of the splat and those that were undone, or not taken after stopping early."""
        return self._step

    @property
    def stopped(self) -> bool:
        """Whether training stopped early, because nothing helped any more."""
        return self.watch is not None and self.watch.stopped

    @property
    def diverged(self) -> bool:
        """Whether the splat is another than that of plain training."""
        return bool(self.main.pool) or self.num_undone_steps > 0

    @property
    def same_as_plain(self) -> bool:
        """Whether the splat is that of the training it follows, from which it is copied at marks only."""
        return self._follows is not None and self.probe is not None and not self.diverged

    def train_until(self, step: int) -> None:
        """Go on up to a step, with every round and check that is due on the way; those at this very step included."""
        for mark in self.marks[self._num_marks_done :]:
            if mark.step > step:
                break
            self._advance(mark.step, at_mark=True)
            self._do(mark)
            self._num_marks_done += 1
        self._advance(step, at_mark=False)

    def _advance(self, step: int, *, at_mark: bool) -> None:
        """Train to a step of the run."""
        if step < self._step:
            return
        self._step = step
        if self.stopped:
            self.num_undone_steps = step - self.trainer.step
            return
        own_step = step - self.num_undone_steps
        if self.control is not None:
            self._advance_control(self.control, own_step)
        if self.probe is not None:
            self.probe.trainer.train_until(own_step)
        if self._follows is not None and self.same_as_plain:
            if at_mark:
                self._follows.train_until(step)
                if self._follows.step != step:
                    raise ValueError(f"the training that is followed is at step {self._follows.step}, not at {step}")
                self.main.take_over(self._follows)
            return
        self.trainer.train_until(own_step)

    def _advance_control(self, control: Track, step: int) -> None:
        if self._scored.pool:
            control.trainer.train_until(step)
        elif self._scored.trainer.step < step == control.trainer.step:
            # All rounds were undone: plain training stands there already.
            self._scored.take_over(control.trainer)

    def _do(self, mark: Mark) -> None:
        planned = mark.round_ is not None
        if self.watch is None:
            if planned:
                self._make_round()
            return
        if self.watch.stopped:
            return
        check = self._check(self.watch)
        max_steps = self.config.train.max_steps
        remaining = max_steps - mark.step
        possible = bool(self.rounds) and remaining >= max(1, round(self.config.min_remaining * max_steps))
        following = self.watch.decide(planned=planned, possible=possible)
        if check.verdict == "undone" and self.control is not None:
            self._undo_rounds(self.watch, check)
        elif check.verdict == "undone":
            self._go_back(to_best=following is None or remaining <= 0)
        if following == "round":
            self._make_round()

    def _make_round(self) -> None:
        if self.control is not None:
            if not self._scored.pool:
                self.control.take_over(self._scored.trainer)
                shutil.rmtree(self._states / BEFORE_ROUND, ignore_errors=True)
            self._keep(BEFORE_ROUND if self._scored.pool else BEFORE_ROUNDS)
        for track in self._tracks():
            track.make_round(self.num_rounds_done, self.T_world_target, self.fixer)
        self.num_rounds_done += 1
        self.newest_round_step = self._step

    def _tracks(self) -> tuple[Track, ...]:
        return (self.main,) if self.probe is None else (self.main, self.probe)

    def _check(self, watch: Watch) -> Check:
        """Score the views held back, and keep a state that is not to be undone."""
        psnr, plain_psnr = self._scores()
        check = watch.judge(psnr, plain_psnr=plain_psnr, step=self._step, kept_step=self._scored.trainer.step)
        logger.info("step %d: %.2f dB on views held back: %s, %s", check.step, psnr, check.tried, check.verdict)
        if plain_psnr is not None:
            logger.info("step %d: %.2f dB without rounds", check.step, plain_psnr)
        elif check.verdict != "undone":
            shutil.rmtree(self._states / "kept", ignore_errors=True)
            self._keep("best" if check.verdict == "better" else "kept")
        return check

    @property
    def _scored(self) -> Track:
        """The splat that has not seen the views held back."""
        return self.probe or self.main

    def _scores(self) -> tuple[float, float | None]:
        """Mean PSNR on the views held back, and that of plain training, where it is compared with that."""
        psnr = self._psnr(self._scored)
        if self.control is None:
            return psnr, None
        return psnr, self._psnr(self.control) if self._scored.pool else psnr

    def _psnr(self, track: Track) -> float:
        return evaluate(lambda camera: track.trainer.render(camera).rgb, self.held_back).psnr

    def _keep(self, kind: str) -> None:
        for name, track in self._named_tracks():
            track.save(self._states / kind / name, num_rounds_done=self.num_rounds_done)

    def _undo_rounds(self, watch: Watch, check: Check) -> None:
        """Undo the last round, or if that is not enough all of them, and take the steps since then without."""
        if check.tried == "round" and (self._states / BEFORE_ROUND).exists():
            self._take_again(BEFORE_ROUND)
            if not watch.is_bad(*self._scores()):
                return
        self._take_again(BEFORE_ROUNDS)

    def _take_again(self, kind: str) -> None:
        for name, track in self._named_tracks():
            track.load(self._states / kind / name)
        self._advance(self._step, at_mark=True)

    def _go_back(self, *, to_best: bool) -> None:
        """Undo what came after the last check that was not bad, or after the best one."""
        kept = self._states / "kept"
        for name, track in self._named_tracks():
            track.load((self._states / "best" if to_best or not kept.exists() else kept) / name)
        self.num_undone_steps = self._step - self.trainer.step

    def _named_tracks(self) -> list[tuple[str, Track]]:
        return list(zip(("main", "probe"), self._tracks(), strict=False))

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs to go on as if nothing had happened."""
        self.main.save(folder, num_rounds_done=self.num_rounds_done)
        if self.watch is None:
            return
        if self.probe is not None:
            self.probe.save(folder / "probe", num_rounds_done=self.num_rounds_done)
        if self.control is not None:
            self.control.save(folder / "control", num_rounds_done=0)
        shutil.copytree(self._states, folder / "states", dirs_exist_ok=True)
        state = {"step": self._step, "num_undone_steps": self.num_undone_steps} | self.watch.state_dict()
        (folder / WATCH).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path, *, device: str = "cpu") -> None:
        """Go on from a folder that `save` wrote; scene, views, targets and config must be those of the saved run.

        Raises:
            InputError: The folder is incomplete, or of a run with other rounds.
        """
        for track in (self.main, self.probe, self.control):
            if track is not None:
                track.device = device
        self.num_rounds_done = self.main.load(folder)
        self._step = self.trainer.step
        if self.watch is None:
            if self.num_rounds_done > len(self.rounds):
                raise InputError(f"checkpoint {folder} is of another run: it has {self.num_rounds_done} rounds")
            self._num_marks_done = self.num_rounds_done
            return
        if self.probe is not None:
            self.probe.load(folder / "probe")
        if self.control is not None:
            self.control.load(folder / "control")
        try:
            state = json.loads((folder / WATCH).read_text(encoding="utf-8"))
            self._step, self.num_undone_steps = int(state["step"]), int(state["num_undone_steps"])
            self.watch.load_state_dict(state)
            shutil.rmtree(self._states)
            shutil.copytree(folder / "states", self._states)
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"checkpoint {folder} cannot be read ({error}): resume from another one") from error
        self._num_marks_done = sum(mark.step <= self._step for mark in self.marks)
