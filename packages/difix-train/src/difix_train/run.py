"""A training run in a folder: trains to the next thing to do, logs, validates, saves, and returns."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from difix_train.dataset import PairDataset
from difix_train.evaluate import PairEvaluation
from difix_train.run_folder import RunFolder
from difix_train.trainer import DifixTrainer

logger = logging.getLogger(__name__)


class TrainingRun:
    """Drives a :class:`DifixTrainer` and keeps its run folder.

    Args:
        trainer: New or loaded.
        folder: Opened by :meth:`RunFolder.open`.
        validation: Held-out pairs, if there are any.
        stop_at: Stop (with a checkpoint) after this step, before ``max_steps``.
    """

    def __init__(
        self,
        trainer: DifixTrainer,
        folder: RunFolder,
        *,
        validation: PairDataset | None = None,
        stop_at: int | None = None,
    ) -> None:
        self.trainer = trainer
        self.folder = folder
        self.validation = validation
        self.end = min(trainer.config.max_steps, stop_at or trainer.config.max_steps)
        self.latest_evaluation: PairEvaluation | None = None
        self._num_logged = len(trainer.history)
        folder.forget_metrics_after(trainer.step)

    @property
    def done(self) -> bool:
        """Whether :attr:`end` is reached."""
        return self.trainer.step >= self.end

    def advance(self, num_steps: int | None = None) -> None:
        """Train to the next log line, checkpoint or validation, whichever comes first, and do it.

        Args:
            num_steps: At most this many steps.
        """
        config, step = self.trainer.config, self.trainer.step
        intervals = [config.log_every, config.checkpoint_every, config.validate_every]
        stops = [self.end, *(step + every - step % every for every in intervals if every)]
        if num_steps:
            stops.append(step + num_steps)
        self.trainer.train_until(min(stops))
        for record in self.trainer.history[self._num_logged :]:
            self.folder.append_metrics({"kind": "train", **asdict(record)})
        self._num_logged = len(self.trainer.history)
        finished = self.trainer.step >= config.max_steps
        if self._is_due(config.validate_every) or (finished and config.validate_every):
            self._validate()
        if self._is_due(config.checkpoint_every) or self.done:
            self._save()
        if finished:
            self.trainer.save_model(self.folder.model)

    def metrics(self) -> dict[str, Any]:
        """Summary of the run so far: the last training record and the last evaluation."""
        history, evaluation = self.trainer.history, self.latest_evaluation
        return {
            "step": self.trainer.step,
            "train": asdict(history[-1]) if history else None,
            "test": evaluation.to_dict() if evaluation else None,
            "uses_reference": evaluation.uses_reference if evaluation else None,
        }

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.trainer.step % every == 0

    def _validate(self) -> None:
        if self.validation is None:
            return
        self.latest_evaluation = evaluation = self.trainer.validate(self.validation)
        values = evaluation.to_dict()
        values.pop("per_sample")
        self.folder.append_metrics({"kind": "test", "step": self.trainer.step, **values})
        self.folder.write_json("metrics.json", self.metrics())
        shown = ", ".join(f"{name} {scores.psnr:.2f} dB" for name, scores in evaluation.table())
        logger.info("Step %d, %d test pairs: %s", self.trainer.step, evaluation.num_samples, shown)

    def _save(self) -> None:
        folder = self.folder.checkpoint(self.trainer.step)
        self.trainer.save(folder)
        self.folder.keep_latest(self.trainer.config.keep_checkpoints)
        logger.info("Saved %s", folder)
