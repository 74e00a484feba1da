"""One run from a folder of photos to a report: plain training beside the loop, then the comparison.

Up to the first round the two trainings are one and the same, and it is done once. Both advance side by side, in small
pieces: between two pieces the run can be saved, stopped and resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difix3d.distillation import Distillation
from difix3d.errors import InputError, as_input_error
from difix3d.loop.branch import new_trainer
from difix3d.loop.progressive import ProgressiveTrainer
from difix3d.report.curves import Curves
from difix3d.report.pictures import write_novel_views
from difix3d.report.results import rgb_renderer
from difix3d.run.comparison import compare
from difix3d.run.fixing_time import FixingTime
from difix3d.run.inputs import RunInputs
from difix3d.run.progress import Progress
from splat_recon.errors import DivergedError
from splat_recon.evaluate import evaluate
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import ViewSet

if TYPE_CHECKING:
    from difix3d.fixers.contract import ViewFixer
    from difix3d.run.run_folder import RunFolder
    from difix3d.run.settings import RunSettings

PIECE = 10
"""Steps between two reports of progress."""

MEASUREMENTS = 12
"""How many points the curves of the report have."""

logger = logging.getLogger(__name__)


class Experiment:
    """A run and its folder.

    Args:
        settings: What to do.
        folder: Where to put it; a new folder, or for `resume` that of an earlier run.
        resume: Go on from the folder's newest checkpoint.
        fixer: What fixes, any callable of the contract (`fixers.contract`); None opens what the settings name.
    """

    def __init__(
        self, settings: RunSettings, folder: RunFolder, *, resume: bool = False, fixer: ViewFixer | None = None
    ) -> None:
        self.asked, self.folder, self.resume = settings, folder, resume
        self.prepared = self.finished = False
        """Whether there is anything to save, and whether the run is over."""
        self.verdict = self.decision = ""
        """What the comparison says, and what to do now."""
        self.time = FixingTime()
        self._given_fixer = fixer
        self._curves = Curves()
        self._last_measured = -1

    def run(self, *, stop_at: int | None = None) -> Iterator[Progress]:
        """Do the run, a piece per iteration; it may be abandoned, after `save` for a later resume, at any of them.

        Args:
            stop_at: Stop both trainings after this step, save, and compare nothing.

        Raises:
            InputError: Scene, split, fixer or folder are not usable; before any heavy work.
        """
        if self.resume:
            self.folder.check_links()
        else:
            self.folder.create()
        with self.folder.logging_to_file():
            try:
                with as_input_error():
                    yield from self._prepare()
                with self.time.phase("training"):
                    yield from self._train(stop_at)
            except DivergedError as error:
                raise InputError(f"training diverged: {error}") from error
            finally:
                if not self.prepared and not self.resume:
                    self.folder.discard()
            if self.step < self.inputs.max_steps:
                return
            with self.time.phase("comparison"):
                self.verdict, self.decision = yield from compare(
                    self.inputs, self.plain, self.loop, self._curves, self.time
                )
            self.finished = True

    @property
    def max_steps(self) -> int:
        """Steps of the whole run, counted as `step`."""
        return self.inputs.max_steps

    @property
    def in_training(self) -> SplatTrainer:
        """The training that is under way, to be looked at."""
        plain_is_over = self.plain.step >= self.plain.config.max_steps
        return self.loop.trainer if plain_is_over or not isinstance(self.loop, Distillation) else self.plain

    @property
    def step(self) -> int:
        """Steps that both trainings have done; with distillation those of all its trainings."""
        if not self.prepared:
            return 0
        if isinstance(self.loop, Distillation):
            return self.plain.step + self.loop.step
        return min(self.plain.step, self.loop.step)

    def _prepare(self) -> Iterator[Progress]:
        yield Progress(phase="prepare", done=0, total=3, note="scene")
        self.inputs = RunInputs(self.asked, self.folder, self.time, resume=self.resume, fixer=self._given_fixer)
        yield from self.inputs.prepare()
        if not (self.resume and self._load()):
            inputs = self.inputs
            self.plain = new_trainer(
                inputs.scene,
                inputs.captured,
                inputs.config.train,
                device=inputs.device,
                gaussians=inputs.start_gaussians(),
            )
            self.loop = self._new_loop()
        self.prepared = True
        if self.resume:
            self.folder.truncate_metrics(self.step)
        for values in self.folder.read_metrics() if self.resume else ():
            self._curves.add(values)
            self._last_measured = max(self._last_measured, values["step"])
        yield Progress(phase="prepare", done=3, total=3)

    def _new_loop(self) -> ProgressiveTrainer | Distillation:
        inputs = self.inputs
        if inputs.distills:
            return Distillation(
                inputs.scene,
                inputs.captured,
                inputs.T_world_target,
                self.plain,
                inputs.settings.distillation,
                fixing=inputs.config,
                stereo=inputs.stereo,
                fixer=inputs.fixer if inputs.has_fixer else None,
                device=inputs.device,
            )
        return ProgressiveTrainer(
            inputs.scene,
            inputs.captured,
            inputs.T_world_target,
            inputs.fixer,
            inputs.config,
            device=inputs.device,
            trainer=self.plain,
            gaussians=inputs.start_gaussians(),
        )

    def _load(self) -> bool:
        """Go on from the newest checkpoint that can be used; False where there is none."""
        inputs, checkpoint = self.inputs, self.folder.recover()
        if checkpoint is None:
            return False
        views = ViewSet.from_views(inputs.captured)
        try:
            self.plain = SplatTrainer.load(checkpoint / "plain", inputs.scene, views, device=inputs.device)
            self.loop = self._new_loop()
            self.loop.load(checkpoint / "loop")
        except ValueError as error:
            # Starting over would cut the measurements, and new checkpoints would give way to the old ones.
            raise InputError(f"no checkpoint of {self.folder.path} can be used: {error}") from error
        self.time.load(checkpoint)
        return True

    def _train(self, stop_at: int | None) -> Iterator[Progress]:
        inputs = self.inputs
        stop = inputs.max_steps if stop_at is None else min(stop_at, inputs.max_steps)
        measure_every = max(1, inputs.max_steps // MEASUREMENTS)
        save_every = inputs.settings.checkpoint_every or inputs.max_steps
        while self.step < stop:
            ahead = [step for step in self._marks() if step > self.step]
            step = min(stop, *ahead[:1], *(self.step - self.step % n + n for n in (PIECE, measure_every, save_every)))
            made_round = self._advance(step)
            if step % measure_every == 0 or step == inputs.max_steps:
                self._measure()
            yield Progress(phase="train", done=self._work(self.step), total=self._work(stop), note=self._note())
            # What a round took is not to be lost.
            if step % save_every == 0 or step == stop or made_round:
                self.save()

    def _marks(self) -> list[int]:
        """Steps at which the loop does more than train."""
        if isinstance(self.loop, Distillation):
            return [self.inputs.config.train.max_steps]
        return [event.step for event in self.loop.events]

    def _work(self, step: int) -> int:
        """Steps of all trainings together; what the loop has in common with plain training is done once."""
        if isinstance(self.loop, Distillation):
            return step
        first_round = next((event.step for event in self.loop.events if event.is_round), self.inputs.max_steps)
        return step + max(0, step - first_round) + (0 if self.loop.validation is None else step)

    def _advance(self, step: int) -> bool:
        """Train up to a step; returns whether there are new novel views."""
        rounds_before, max_steps = self.loop.num_rounds_done, self.inputs.config.train.max_steps
        if isinstance(self.loop, Distillation):
            self.plain.train_until(min(step, max_steps))
            if step > max_steps:
                self.loop.train_until(step - max_steps)
            novel = self.loop.novel
        else:
            self.loop.train_until(step)
            self.plain.train_until(step)
            novel = self.loop.main.novel
        if self.loop.num_rounds_done == rounds_before or novel is None:
            return False
        logger.info("step %d: round %d of novel views", step, self.loop.num_rounds_done)
        write_novel_views(self.folder.images, novel, self.inputs.captured)
        return True

    def _note(self) -> str:
        latest = self._curves.latest("loop") or self._curves.latest("plain")
        measured = f", {latest['psnr']:.1f} dB" if latest else ""
        if isinstance(self.loop, Distillation):
            return f"{self.loop.stage}{measured}"
        return f"step {self.step}, round {self.loop.num_rounds_done}{measured}"

    def _measure(self) -> None:
        """Score what is in training on the test photos; while the loop is plain training still, that alone."""
        if self.step <= self._last_measured:
            return
        self._last_measured = self.step
        trainers = {"plain": self.plain}
        if isinstance(self.loop, Distillation):
            trainers = trainers if self.loop.step == 0 else {"loop": self.loop.student} if self.loop.student else {}
        elif not self.loop.main.shares_trainer:
            trainers["loop"] = self.loop.trainer
        for name, trainer in trainers.items():
            scores = evaluate(rgb_renderer(trainer), self.inputs.held_out)
            values: dict[str, Any] = {
                "step": self.step,
                "variant": name,
                "psnr": scores.psnr,
                "ssim": scores.ssim,
                "num_gaussians": len(trainer.gaussians),
                "loss": trainer.history[-1].loss if trainer.history else None,
            }
            self._curves.add(values)
            self.folder.append_metrics(values)

    def save(self) -> Path:
        """Write a checkpoint of both trainings; a resumed run goes on from it bit for bit."""

        def write(part: Path) -> None:
            self.plain.save(part / "plain")
            self.time.save(part)
            self.loop.save(part / "loop")

        return self.folder.write_checkpoint(self.step, write)
