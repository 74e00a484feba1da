"""A training run in a folder: trains to the next thing to do, validates, and returns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix_model.device import chosen_device
from difix_train.config import SIZE_MULTIPLE, DataConfig, TrainConfig
from difix_train.dataset import PairDataset
from difix_train.errors import InputError
from difix_train.evaluate import REFERENCE_MODES, PairEvaluation, evaluate_pairs, spread
from difix_train.examples import Example, fixed_example, grid
from difix_train.losses.lpips import Lpips
from difix_train.losses.objective import Objective
from difix_train.losses.vgg import load_vgg16
from difix_train.presets import preset
from difix_train.settings import DECODER_LORA_RANK, EvalSettings, RunSettings
from difix_train.start import StartingPoint, start_from_base, start_from_model, start_from_preset
from difix_train.task import DifixTask
from train_runs import Loop, Processes, RunFolder, Tracker, newest_checkpoint, open_trackers
from train_runs.config import config_values

logger = logging.getLogger(__name__)

VERSIONED = ("difix-train", "difix-model", "diffusers")
"""Distributions whose versions a run writes down, besides those of train-runs."""


class TrainingRun:
    """A :class:`train_runs.Loop` over a :class:`DifixTask`, with validations on the way.

    Args:
        task: What is trained.
        folder: The run folder; a run that it holds goes on.
        validation: Test pairs, if there are any.
        stop_at: Stop (with a checkpoint) after this step, before ``max_steps``.
        trackers: Where numbers and pictures go besides the folder.
        lpips: Perceptual distance for validations; the loss's by default, if it has one.
    """

    def __init__(
        self,
        task: DifixTask,
        folder: RunFolder,
        *,
        validation: PairDataset | None = None,
        stop_at: int | None = None,
        trackers: Sequence[Tracker] = (),
        lpips: nn.Module | None = None,
    ) -> None:
        self.task = task
        self.folder = folder
        self.validation = validation
        self.trackers = tuple(trackers)
        self.lpips = task.objective.lpips if lpips is None else lpips.to(task.device)
        self.latest_evaluation: PairEvaluation | None = None
        self.loop = Loop(task, folder, task.config, processes=task.processes, trackers=trackers)
        self.end = min(self.config.max_steps, stop_at or self.config.max_steps)
        validated = [line["step"] for line in folder.read_metrics() if line["kind"] == "test"]
        self._validated_step = max(task.processes.broadcast(validated), default=0)
        self._validate_if_due()  # A kill between a checkpoint and its validation left this to do.

    @property
    def config(self) -> TrainConfig:
        """What decides the result."""
        return self.task.config

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return self.loop.step

    @property
    def done(self) -> bool:
        """Whether :attr:`end` is reached."""
        return self.step >= self.end

    def advance(self, num_steps: int | None = None) -> None:
        """Train to the next validation or the end, whichever comes first, and validate.

        Args:
            num_steps: At most this many steps.

        Raises:
            NonFiniteLossError: Loss or gradient is NaN or infinite; names the samples, which the folder notes too.
        """
        stops = [self.end] if num_steps is None else [self.end, self.step + num_steps]
        every = self.config.validate_every
        if every:
            stops += [self.step - self.step % every + every] if self.step else [1]
        self.loop.train_until(min(stops))
        self._validate_if_due()
        if self.done:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the present step, unless it is there."""
        self.loop.save()

    def validate(
        self, dataset: PairDataset, *, max_samples: int | None = None, modes: tuple[str, ...] = REFERENCE_MODES
    ) -> PairEvaluation:
        """Evaluate the weights for use on other pairs; consumes no random numbers.

        Of several processes every one must call; all get the result.
        """
        evaluation = None
        with self.loop.averaged():
            if self._takes_part:
                evaluation = evaluate_pairs(
                    self.task.fix,
                    dataset,
                    max_samples=self.config.validation_samples if max_samples is None else max_samples,
                    modes=modes,
                    lpips=self.lpips,
                    device=self.task.device,
                )
        return self.task.processes.broadcast(evaluation)

    def examples(self, dataset: PairDataset, indices: list[int]) -> list[Example]:
        """Fix some test pairs to look at: what the model for use would give, each with its own reference.

        Args:
            dataset: Test pairs.
            indices: Which of them.
        """
        if not self._takes_part:
            return []
        with self.loop.averaged():
            return [fixed_example(self.task.fix, dataset, index, self.task.device) for index in indices]

    def stop_requested(self, received: Sequence[int]) -> int:
        """The number of a signal that any process has received, 0 for none; every process must ask."""
        return self.task.processes.all_reduce_max(max(received, default=0))

    def metrics(self) -> dict[str, Any]:
        """Summary of the run so far: the last training record and the last evaluation."""
        history, evaluation = self.loop.history, self.latest_evaluation
        return {
            "step": self.step,
            "train": asdict(history[-1]) if history else None,
            "test": evaluation.to_dict() if evaluation else None,
            "uses_reference": evaluation.uses_reference if evaluation else None,
        }

    def close(self) -> None:
        """Finish what trackers have begun to write."""
        for tracker in self.trackers:
            tracker.close()

    @property
    def _takes_part(self) -> bool:
        """Whether this process fixes test pairs: a network in shards needs every process for every image."""
        return self.task.processes.is_main or self.task.processes.sharded

    def _validate_if_due(self) -> None:
        every, step = self.config.validate_every, self.step
        due = every > 0 and step > 0 and (step % every == 0 or step == 1 or self.loop.done)
        if self.validation is None or not due or step == self._validated_step:
            return
        self.latest_evaluation = evaluation = self.validate(self.validation)
        examples = self.examples(self.validation, spread(len(self.validation), self.config.grid_samples))
        self._validated_step = step
        if self.task.processes.is_main:
            self._record(evaluation, examples)

    def _record(self, evaluation: PairEvaluation, examples: Sequence[Example]) -> None:
        step = self.step
        if examples:
            picture = grid(examples)
            self.folder.write_image(f"step_{step:06d}.png", picture)
            for tracker in self.trackers:
                tracker.picture("test/examples", picture, step)
        for tracker in self.trackers:
            tracker.numbers(_flat_scores(evaluation), step)
        values = evaluation.to_dict()
        values.pop("per_sample")
        self.folder.append_metrics({"kind": "test", "step": step, **values})
        self.folder.write_json("metrics.json", self.metrics())
        shown = ", ".join(f"{name} {scores.psnr:.2f} dB" for name, scores in evaluation.table())
        logger.info("Step %d, %d test pairs: %s", step, evaluation.num_samples, shown)


def _flat_scores(evaluation: PairEvaluation) -> dict[str, float]:
    values = {}
    for name, scores in (("before", evaluation.before), *evaluation.after.items()):
        values |= {f"test/{name}_{key}": value for key, value in asdict(scores).items() if value is not None}
    return values


def open_run(settings: RunSettings) -> TrainingRun:
    """Check the settings, load pairs and weights, and return the run at its beginning or where it was left."""
    records = settings.check()
    config, folder = settings.config, RunFolder(settings.out)
    dataset = PairDataset.from_records(records, "train", config.data)
    validation = None
    if any(record.split == "test" for record in records):
        validation = PairDataset.from_records(records, "test", validation_data(config.data))
    processes = Processes(chosen_device(settings.device))
    objective = Objective(config.loss)  # Before the weights: a missing backbone should show at once.
    lpips = validation_lpips(objective) if validation is not None and config.validate_every else None
    trackers = []
    if processes.is_main:
        trackers = open_trackers(
            settings.trackers, settings.out, project=settings.project, settings=config_values(settings)
        )
    checkpoint = newest_checkpoint(folder, processes) if settings.resume else None
    if checkpoint is not None:
        task = DifixTask.from_checkpoint(checkpoint, dataset, config, objective=objective, processes=processes)
    else:
        start = starting_point(settings, dataset.prompts)
        task = DifixTask(
            start.network,
            start.text_embeddings,
            dataset,
            config,
            objective=objective,
            metadata=start.metadata,
            processes=processes,
        )
    run = TrainingRun(task, folder, validation=validation, stop_at=settings.stop_at, trackers=trackers, lpips=lpips)
    if processes.is_main:
        folder.write_config(config_values(settings), distributions=VERSIONED)
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
    if settings.model is not None or settings.base is None:
        return start_from_model(
            settings.model or "default",
            base=settings.base,
            prompts=prompts,
            reference_attention=settings.reference_attention,
        )
    return start_from_base(
        settings.base,
        prompts=prompts,
        lora_rank=DECODER_LORA_RANK if settings.lora_rank is None else settings.lora_rank,
        reference_attention=settings.reference_attention is not False,
        seed=settings.config.seed,
    )


def validation_data(data: DataConfig) -> DataConfig:
    """How test images are read: without augmentation; where training crops, whole frames of any size."""
    plain = replace(
        data, horizontal_flip_prob=0.0, vertical_flip_prob=0.0, drop_reference_prob=0.0, wrong_reference_prob=0.0
    )
    return plain if data.framing == "resize" else replace(plain, height=SIZE_MULTIPLE, width=SIZE_MULTIPLE)


def validation_lpips(objective: Objective) -> nn.Module | None:
    """What validations measure LPIPS with, also where the loss has none: None where its backbone is not available."""
    if objective.lpips is not None:
        return objective.lpips
    try:
        return Lpips.from_heads_file(load_vgg16(objective.config.vgg16) if objective.vgg is None else objective.vgg)
    except InputError as error:
        logger.info("No LPIPS in validations: %s", error)
        return None


def evaluate_model(settings: EvalSettings) -> PairEvaluation:
    """Measure weights of any kind on a split of a pairs file."""
    records = settings.check()
    dataset = PairDataset.from_records(records, settings.split, settings.data)
    device = chosen_device(settings.device)
    start = start_from_model(settings.model, base=settings.base, prompts=dataset.prompts)
    network = start.network.to(device).eval()
    embeddings = {prompt: embedding.to(device) for prompt, embedding in start.text_embeddings.items()}
    own = next(iter(embeddings.values()))
    timestep = start.metadata.timestep

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
