"""A training run in a folder: trains to the next thing to do, logs, validates, saves, and returns."""

from __future__ import annotations

import logging
import platform
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.config import TIMESTEP
from difix_model.device import chosen_device
from difix_train.config import SIZE_MULTIPLE, DataConfig
from difix_train.dataset import PairDataset
from difix_train.errors import InputError
from difix_train.evaluate import PairEvaluation, evaluate_pairs
from difix_train.losses.lpips import Lpips
from difix_train.losses.objective import Objective
from difix_train.losses.vgg import load_vgg16
from difix_train.presets import preset
from difix_train.run_folder import CONFIG, RunFolder
from difix_train.settings import EvalSettings, RunSettings
from difix_train.start import StartingPoint, start_from_base, start_from_model, start_from_preset
from difix_train.state import config_values, newest_whole
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
            self.save()
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

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        folder = self.folder.checkpoint(self.trainer.step)
        self.trainer.save(folder)
        self.folder.keep_latest(self.trainer.config.keep_checkpoints)
        logger.info("Saved %s", folder)


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
    device = chosen_device(settings.device)
    objective = Objective(config.loss)  # Before the weights: a missing backbone should show at once.
    if checkpoint is not None:
        checkpoint = newest_whole([folder.checkpoint(step) for step in folder.checkpoint_steps()])
        trainer = DifixTrainer.load(checkpoint, dataset, config, device=device, objective=objective)
    else:
        start = starting_point(settings, dataset.prompts)
        trainer = DifixTrainer(
            start.network,
            start.text_embeddings,
            dataset,
            config,
            device=device,
            objective=objective,
            metadata=start.metadata,
        )
    run = TrainingRun(trainer, folder, validation=validation, stop_at=settings.stop_at)
    folder.write_json(CONFIG, {"settings": config_values(settings), "versions": versions()})
    return run


def starting_point(settings: RunSettings, prompts: tuple[str, ...]) -> StartingPoint:
    """The network that the settings ask for."""
    if settings.preset is not None:
        return start_from_preset(preset(settings.preset), prompts=prompts, seed=settings.config.seed)
    if settings.model is not None:
        return start_from_model(settings.model, base=settings.base, prompts=prompts)
    assert settings.base is not None
    return start_from_base(
        settings.base,
        prompts=prompts,
        lora_rank=settings.lora_rank,
        reference_attention=settings.reference_attention,
        seed=settings.config.seed,
    )


def validation_data(data: DataConfig) -> DataConfig:
    """How held-out images are read: without augmentation; where training crops, whole frames of any size."""
    plain = replace(
        data, horizontal_flip_prob=0.0, vertical_flip_prob=0.0, drop_reference_prob=0.0, wrong_reference_prob=0.0
    )
    return plain if data.framing == "resize" else replace(plain, height=SIZE_MULTIPLE, width=SIZE_MULTIPLE)


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
