"""A training run in a folder: trains to the next thing to do, logs, validates, saves, and returns."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix_model.config import TIMESTEP
from difix_model.device import chosen_device
from difix_train.config import SIZE_MULTIPLE, DataConfig
from difix_train.dataset import PairDataset
from difix_train.errors import InputError, NonFiniteLossError
from difix_train.evaluate import PairEvaluation, evaluate_pairs, spread
from difix_train.examples import grid
from difix_train.losses.lpips import Lpips
from difix_train.losses.objective import Objective
from difix_train.losses.vgg import load_vgg16
from difix_train.presets import preset
from difix_train.processes import Processes
from difix_train.records import StepRecord
from difix_train.run_folder import CONFIG, RunFolder
from difix_train.settings import DECODER_LORA_RANK, EvalSettings, RunSettings
from difix_train.start import StartingPoint, start_from_base, start_from_model, start_from_preset
from difix_train.state import config_values, newest_whole
from difix_train.trackers import Tracker, open_trackers
from difix_train.trainer import DifixTrainer

logger = logging.getLogger(__name__)


class TrainingRun:
    """Drives a :class:`DifixTrainer` and keeps its run folder.

    Args:
        trainer: New or loaded.
        folder: Opened by :meth:`RunFolder.open`.
        validation: Held-out pairs, if there are any.
        stop_at: Stop (with a checkpoint) after this step, before ``max_steps``.
        trackers: Where numbers and pictures go besides the folder.
    """

    def __init__(
        self,
        trainer: DifixTrainer,
        folder: RunFolder,
        *,
        validation: PairDataset | None = None,
        stop_at: int | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.trainer = trainer
        self.folder = folder
        self.validation = validation
        self.end = min(trainer.config.max_steps, stop_at or trainer.config.max_steps)
        self.latest_evaluation: PairEvaluation | None = None
        self.trackers = tuple(trackers)
        self.seconds = 0.0
        """Time spent in steps."""
        self._is_main = trainer.processes.is_main
        self._num_logged = len(trainer.history)
        self._seconds_logged = self._seconds_waited_logged = 0.0
        # What was loaded from here is not written again: a kill in the middle of that could cost the checkpoint.
        stands_there = trainer.processes.from_main(folder.checkpoint(trainer.step).is_dir())
        self._saved_step: int | None = trainer.step if stands_there else None
        if self._is_main:
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
        if step == 0 and config.validate_every:
            stops.append(1)
        self._train_until(min(stops))
        self._log(self.trainer.history[self._num_logged :])
        self._num_logged = len(self.trainer.history)
        finished = self.trainer.step >= config.max_steps
        if config.validate_every and (self._is_due(config.validate_every) or self.trainer.step == 1 or finished):
            self._validate()
        if self._is_due(config.checkpoint_every) or self.done:
            self.save()
        if finished:
            self.trainer.save_model(self.folder.model)

    def finish(self) -> None:
        """Write the model of a run that has ended, if it was interrupted between its last checkpoint and the model."""
        lacks_model = self.trainer.processes.from_main(self.folder.model_step != self.trainer.step)
        if self.trainer.step >= self.trainer.config.max_steps and lacks_model:
            self.trainer.save_model(self.folder.model)

    def stop_wanted(self, received: Sequence[int]) -> int:
        """The number of a signal that any process has received, 0 for none; every process must ask."""
        return self.trainer.processes.largest(max(received, default=0))

    @property
    def share_waiting_for_data(self) -> float:
        """Share of the steps' time in which training waited for images, in [0, 1]."""
        return self.trainer.seconds_waiting_for_data / self.seconds if self.seconds else 0.0

    def close(self) -> None:
        """Finish what trackers have begun to write."""
        for tracker in self.trackers:
            tracker.close()

    def _train_until(self, step: int) -> None:
        begun = time.perf_counter()
        try:
            self.trainer.train_until(step)
        except NonFiniteLossError as error:
            if self._is_main:
                values = {"step": error.step, "ids": list(error.ids), "message": str(error)}
                path = self.folder.write_json(f"nonfinite_{error.step:06d}.json", values)
                logger.error("The samples stand in %s", path)
            raise
        finally:
            self.seconds += time.perf_counter() - begun

    def _log(self, records: Sequence[StepRecord]) -> None:
        if not (self._is_main and records):
            return
        seconds = self.seconds - self._seconds_logged
        waited = self.trainer.seconds_waiting_for_data - self._seconds_waited_logged
        waiting = {"share_waiting_for_data": round(waited / seconds, 4) if seconds else 0.0}
        self._seconds_logged += seconds
        self._seconds_waited_logged += waited
        for record in records:
            self.folder.append_metrics({"kind": "train", **asdict(record), **waiting})
            values = {"loss": record.loss, "grad_norm": record.grad_norm, "learning_rate": record.learning_rate}
            values |= waiting | {f"loss_{name}": value for name, value in record.terms.items()}
            for tracker in self.trackers:
                tracker.numbers({f"train/{name}": value for name, value in values.items()}, record.step)

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
        trainer = self.trainer
        self.latest_evaluation = evaluation = trainer.validate(self.validation)
        examples = trainer.examples(self.validation, spread(len(self.validation), trainer.config.grid_samples))
        if not self._is_main:
            return
        if examples:
            picture = grid(examples)
            self.folder.write_image(f"step_{trainer.step:06d}.png", picture)
            for tracker in self.trackers:
                tracker.picture("test/examples", picture, trainer.step)
        for tracker in self.trackers:
            tracker.numbers(_flat_scores(evaluation), trainer.step)
        values = evaluation.to_dict()
        values.pop("per_sample")
        self.folder.append_metrics({"kind": "test", "step": self.trainer.step, **values})
        self.folder.write_json("metrics.json", self.metrics())
        shown = ", ".join(f"{name} {scores.psnr:.2f} dB" for name, scores in evaluation.table())
        logger.info("Step %d, %d test pairs: %s", self.trainer.step, evaluation.num_samples, shown)

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        step = self.trainer.step
        if step == self._saved_step:
            return
        folder = self.folder.checkpoint(step)
        self.trainer.save(folder)
        self._saved_step = step
        if self._is_main:
            self.folder.keep_latest(self.trainer.config.keep_checkpoints)
            logger.info("Saved %s", folder)


def _flat_scores(evaluation: PairEvaluation) -> dict[str, float]:
    values = {}
    for name, scores in (("before", evaluation.before), *evaluation.after.items()):
        values |= {f"test/{name}_{key}": value for key, value in asdict(scores).items() if value is not None}
    return values


def open_run(settings: RunSettings) -> TrainingRun:
    """Check the settings, load pairs and weights, and return the run at its beginning or where it was left.

    Raises:
        InputError: Anything the user gave is wrong.
    """
    records, checkpoint = settings.check()
    config, folder = settings.config, RunFolder(settings.out)
    dataset = PairDataset.from_records(records, "train", config.data)
    validation = None
    if any(record.split == "test" for record in records):
        validation = PairDataset.from_records(records, "test", validation_data(config.data))
    processes = Processes(chosen_device(settings.device))
    trackers = []
    if processes.is_main:
        trackers = open_trackers(
            settings.trackers, settings.out, project=settings.project, settings=config_values(settings)
        )
    objective = Objective(config.loss)  # Before the weights: a missing backbone should show at once.
    lpips = validation_lpips(objective) if validation is not None and config.validate_every else None
    if checkpoint is not None:
        checkpoint = newest_whole([folder.checkpoint(step) for step in folder.checkpoint_steps()])
        trainer = DifixTrainer.load(checkpoint, dataset, config, objective=objective, processes=processes, lpips=lpips)
        if processes.is_main:
            folder.set_aside_after(trainer.step)
    else:
        start = starting_point(settings, dataset.prompts)
        trainer = DifixTrainer(
            start.network,
            start.text_embeddings,
            dataset,
            config,
            objective=objective,
            metadata=start.metadata,
            processes=processes,
            lpips=lpips,
        )
    run = TrainingRun(trainer, folder, validation=validation, stop_at=settings.stop_at, trackers=trackers)
    if processes.is_main:
        folder.write_json(CONFIG, {"settings": config_values(settings), "versions": versions()})
    run.finish()
    return run


def starting_point(settings: RunSettings, prompts: tuple[str, ...]) -> StartingPoint:
    """The network that the settings ask for."""
    start = _plain_starting_point(settings, prompts)
    if settings.unet_lora_rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.config.seed)
            start.network.add_unet_lora(settings.unet_lora_rank, alpha=float(settings.unet_lora_rank))
    return start


def _plain_starting_point(settings: RunSettings, prompts: tuple[str, ...]) -> StartingPoint:
    if settings.preset is not None:
        return start_from_preset(preset(settings.preset), prompts=prompts, seed=settings.config.seed)
    if settings.model is not None:
        return start_from_model(
            settings.model, base=settings.base, prompts=prompts, reference_attention=settings.reference_attention
        )
    assert settings.base is not None
    return start_from_base(
        settings.base,
        prompts=prompts,
        lora_rank=DECODER_LORA_RANK if settings.lora_rank is None else settings.lora_rank,
        reference_attention=settings.reference_attention is not False,
        seed=settings.config.seed,
    )


def validation_data(data: DataConfig) -> DataConfig:
    """How held-out images are read: without augmentation; where training crops, whole frames of any size."""
    plain = replace(
        data, horizontal_flip_prob=0.0, vertical_flip_prob=0.0, drop_reference_prob=0.0, wrong_reference_prob=0.0
    )
    return plain if data.framing == "resize" else replace(plain, height=SIZE_MULTIPLE, width=SIZE_MULTIPLE)


def validation_lpips(objective: Objective) -> nn.Module | None:
    """What validations measure LPIPS with, also where the loss has none: None where its backbone is not at hand."""
    if objective.lpips is not None:
        return objective.lpips
    try:
        return Lpips.from_heads_file(load_vgg16(objective.config.vgg16) if objective.vgg is None else objective.vgg)
    except InputError as error:
        logger.info("No LPIPS in validations: %s", error)
        return None


def evaluate_model(settings: EvalSettings) -> PairEvaluation:
    """Measure weights of any kind on a split of a pairs file.

    Raises:
        InputError: Anything the user gave is wrong.
    """
    records = settings.check()
    dataset = PairDataset.from_records(records, settings.split, settings.data)
    device = chosen_device(settings.device)
    start = start_from_model(settings.model, base=settings.base, prompts=dataset.prompts)
    network = start.network.to(device).eval()
    embeddings = {prompt: embedding.to(device) for prompt, embedding in start.text_embeddings.items()}
    own = next(iter(embeddings.values()))
    timestep = int(start.metadata.get("timestep", TIMESTEP))

    def fix(x: Float[Tensor, "1 v c=3 h w"], prompt: str) -> Float[Tensor, "1 1 c=3 h w"]:
        return network(x, text_embedding=embeddings.get(prompt, own), timestep=timestep, decode="target")

    lpips = _lpips_or_none(settings.vgg16)
    with torch.no_grad():
        return evaluate_pairs(
            fix,
            dataset,
            max_samples=settings.max_samples,
            lpips=None if lpips is None else lpips.to(device),
            device=device,
        )


def _lpips_or_none(vgg16: Path | None) -> Lpips | None:
    try:
        return Lpips.from_heads_file(load_vgg16(vgg16))
    except InputError as error:
        if vgg16 is not None:
            raise
        logger.info("No LPIPS: %s", error)
        return None


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("difix-train", "difix-model", "torch", "diffusers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
