"""The loop: trains a task in a run folder, returns when asked, and continues bit for bit after being killed."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from train_runs.checkpoints import Checkpoint, put_in_order, read_checkpoint, remove_older, under, write_checkpoint
from train_runs.config import LoopConfig, config_values, differences, fixed_values
from train_runs.ema import WARMUPS, Ema
from train_runs.errors import InputError, NonFiniteLossError, first_problems
from train_runs.files import replace_folder
from train_runs.optim import Optimizers
from train_runs.processes import Processes, full_tensor, reshard_like
from train_runs.records import RunningMeans, StepRecord
from train_runs.run_folder import RunFolder
from train_runs.task import ModelTask, Task, TaskState
from train_runs.trackers import Tracker

logger = logging.getLogger(__name__)

MODEL_FOLDER = "model"
"""Inside a checkpoint, what a :class:`ModelTask` writes."""

MAX_STEPS = 10**9
"""Runs are shorter than this, so that no two steps of two seeds have the same random numbers."""

STEP_FILE = "step.json"
"""Inside `model/` of the run folder: how many steps that model was trained."""


class Loop:
    """Trains a task; continues from the run folder's newest valid checkpoint if there is one.

    Of several processes each makes its own loop, and every method is called in every process. What `train_until` does
    is the same in any number of calls, with or without a save and a new loop in between: bit for bit on a CPU.

    Args:
        task: What is trained.
        folder: Where everything is written; None for nothing.
        config: How the run proceeds.
        settings: A configuration dataclass of all that decides the result, if `config` is only a part of it. It is
            written to config.json; a run is continued only under the same, except for fields in a class's `MAY_CHANGE`.
        processes: The processes that train together.
        trackers: Where numbers go besides the folder; their owner closes them.
        checkpoint: Continue from this one, a valid checkpoint, instead of looking for it in `folder`.

    Raises:
        InputError: The folder cannot be written, or holds a run with other settings, or by another number of processes.
        ValueError: The task's parameter groups do not fit together.
    """

    def __init__(
        self,
        task: Task,
        folder: RunFolder | Path | str | None,
        config: LoopConfig,
        *,
        settings: Any = None,
        processes: Processes | None = None,
        trackers: Sequence[Tracker] = (),
        checkpoint: Path | None = None,
    ) -> None:
        self.task = task
        self.folder = RunFolder(Path(folder)) if isinstance(folder, Path | str) else folder
        self.config = config
        self.settings = config if settings is None else settings
        self.processes = Processes() if processes is None else processes
        self.trackers = tuple(trackers)
        self.step = 0
        """Finished optimizer steps."""
        self.history: list[StepRecord] = []
        """Records of the steps that this object made."""
        self.seconds = 0.0
        """Time spent in steps."""
        self.seconds_waiting = 0.0
        """Of these, time spent waiting for batches."""
        self.optimizers = Optimizers(task.parameter_groups(), config.max_steps)
        self.parameters = self.optimizers.parameters
        self.ema = self._new_ema()
        self._generator = torch.Generator().manual_seed(config.seed + 1)
        self._means = RunningMeans()
        self._logged_at = (0.0, 0.0)
        self._saved_step: int | None = None
        if checkpoint is not None:
            self.restore(checkpoint)
        elif self.folder is not None:
            newest = newest_checkpoint(self.folder, self.processes)
            if newest is not None:
                self.restore(newest, checked=True)
        if self.folder is not None and self.processes.is_main:
            self.folder.truncate_metrics(self.step)
            self.folder.write_config(config_values(self.settings))
        if self.done:
            self._write_finished_model()

    @property
    def done(self) -> bool:
        """Whether the last step is made."""
        return self.step >= self.config.max_steps

    @property
    def waiting_fraction(self) -> float:
        """Fraction of the steps' time in which training waited for batches, in [0, 1]."""
        return self.seconds_waiting / self.seconds if self.seconds else 0.0

    def train_until(self, step: int) -> None:
        """Train until ``step`` optimizer steps are finished, at most the config's `max_steps`.

        On the way, metrics are logged and checkpoints written as the config says; after the last step both the
        checkpoint and, where the task has one, the finished model.

        Raises:
            NonFiniteLossError: Loss or gradient is NaN or infinite; the weights are those before the step.
        """
        while self.step < min(step, self.config.max_steps):
            begun = time.perf_counter()
            try:
                rate = self._train_step()
            except NonFiniteLossError as error:
                self._report(error)
                raise
            finally:
                self.seconds += time.perf_counter() - begun
            if self.step % self.config.log_every == 0:
                self._log(rate)
            if self.folder is not None and (self.step % self.config.checkpoint_every == 0 or self.done):
                self.save()
            if self.done:
                self._write_finished_model()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While this lasts, the model has the weights for use: the moving average, where there is one."""
        if self.ema is None:
            yield
            return
        self.ema.swap(self.parameters)
        try:
            yield
        finally:
            self.ema.swap(self.parameters)

    def save(self) -> None:
        """Write a checkpoint of the present step into the run folder, unless it is there; keep the latest ones."""
        if self.folder is None:
            raise ValueError("this loop has no run folder: use write_checkpoint")
        if self.step == self._saved_step:
            return
        path = self.folder.checkpoint(self.step)
        self.write_checkpoint(path)
        self._saved_step = self.step
        if self.processes.is_main:
            self.folder.flush_metrics()
            remove_older(path, self.config.keep_checkpoints)
            logger.info("Saved %s", path)

    def write_checkpoint(self, path: Path) -> None:
        """Write everything that further steps depend on into a folder, which appears complete or not at all."""
        state = self.task.state()
        tensors = {f"task/{name}": value for name, value in state.tensors.items()}
        tensors |= {f"optimizer/{name}": value for name, value in self.optimizers.tensors().items()}
        tensors["generator"] = self._generator.get_state()
        values = {
            "step": self.step,
            "settings": fixed_values(self.settings),
            "means": self._means.sums,
            "world_size": self.processes.world_size,
            "task": state.values,
        }
        with self._model_writer() as write_model:
            tensors |= self._weights()
            if self.processes.is_main:
                write_checkpoint(path, values, tensors, write_more=lambda folder: write_model(folder / MODEL_FOLDER))
        self.processes.wait()

    def write_model(self, folder: Path) -> None:
        """Write only the model for use, of a task that has one; an earlier one is replaced."""
        with self._model_writer() as write_model:
            if self.processes.is_main:
                try:
                    replace_folder(folder, write_model)
                except (OSError, SafetensorError) as error:
                    raise InputError(f"cannot write {folder}: {error}") from error
        self.processes.wait()

    def restore(self, path: Path, *, checked: bool = False) -> None:
        """Put everything back as it was when a checkpoint was written.

        Args:
            path: The checkpoint.
            checked: Its checksums have just been compared.
        """
        checkpoint = read_checkpoint(path, checked=checked)
        values, tensors = checkpoint.values, checkpoint.tensors
        changed = differences(values["settings"], fixed_values(self.settings))
        if changed:
            raise InputError(f"{path} belongs to a run with other settings: {first_problems(changed)}")
        if values["world_size"] != self.processes.world_size:
            raise InputError(
                f"{path} was written by {values['world_size']} processes and there are now "
                f"{self.processes.world_size}: their batches would be others, continue with as many"
            )
        try:
            self._load(checkpoint)
            self.task.load_state(TaskState(values=values["task"], tensors=under("task/", tensors)))
        except (ValueError, KeyError) as error:
            raise InputError(f"{path} does not fit what is trained: {error}") from error
        self.step = values["step"]
        self._generator.set_state(tensors["generator"])
        self._means = RunningMeans({name: (total, count) for name, (total, count) in values["means"].items()})
        self.optimizers.load_tensors(under("optimizer/", tensors))
        # What was read from the run folder is not written again: a kill in the middle of that could cost it.
        in_place = self.folder is not None and path == self.folder.checkpoint(self.step)
        self._saved_step = self.step if in_place else None
        if in_place and self.processes.is_main:
            remove_older(path, self.config.keep_checkpoints)  # A killed writer had no time for it.

    @torch.no_grad()
    def _load(self, checkpoint: Checkpoint) -> None:
        """Parameters and their averages."""
        if isinstance(self.task, ModelTask):
            self.task.read_model(checkpoint.path / MODEL_FOLDER)
            self.ema = self._new_ema()  # The model holds the averages.
        own, averages = under("parameters/", checkpoint.tensors), under("average/", checkpoint.tensors)
        if own:
            missing = self.parameters.keys() ^ own.keys()
            if missing:
                raise ValueError(f"other parameters are trained now: {first_problems(sorted(missing))}")
            for name, parameter in self.parameters.items():
                parameter.copy_(reshard_like(own[name], parameter))
        if self.ema is not None and averages:
            self.ema.averages = {n: reshard_like(averages[n], value) for n, value in self.parameters.items()}

    def _train_step(self) -> float:
        """One optimizer step; returns its learning rate."""
        config = self.config
        rate = self.optimizers.set_learning_rates(self.step)
        self.optimizers.zero_grad()
        shown: list[list[str]] = []
        losses: list[dict[str, Tensor]] = []
        with self._seeded():
            for number in range(1, config.gradient_accumulation + 1):
                begun = time.perf_counter()
                batch = self.task.next_batch()
                self.seconds_waiting += time.perf_counter() - begun
                shown.append(list(getattr(batch, "ids", ())))
                with self.processes.no_sync(enabled=number < config.gradient_accumulation):
                    losses.append(self._accumulate_gradients(batch))
        values = self._checked_values(losses, self.optimizers.clip_gradients(), shown)
        self.optimizers.step()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.parameters, self.step)
        self._means.add(values)
        return rate

    def _accumulate_gradients(self, batch: Any) -> dict[str, Tensor]:
        """The loss and its terms, still on their device."""
        terms = self.task.losses(batch, step=self.step, generator=self._generator)
        total = torch.stack(list(terms.values())).sum()
        (total / self.config.gradient_accumulation).backward()
        return {name: value.detach() for name, value in {"loss": total, **terms}.items()}

    def _checked_values(
        self, losses: Sequence[Mapping[str, Tensor]], norms: Sequence[Tensor], shown: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        """Means of losses over batches and processes, and the norm of the gradients, before the optimizer's step.

        All numbers come to the CPU at once: each transfer waits for the GPU.

        Raises:
            NonFiniteLossError: One is not finite.
        """
        tensors = {f"{index}/{name}": value for index, found in enumerate(losses) for name, value in found.items()}
        numbers = torch.stack([value.double() for value in (*tensors.values(), *norms)]).tolist()
        means = self.processes.all_reduce_mean(dict(zip(tensors, numbers[: len(tensors)], strict=True)))
        values: dict[str, float] = {"loss": 0.0}
        for index, found in enumerate(losses):
            ids = [name for names in shown[: index + 1] for name in names]
            self._require_finite(means[f"{index}/loss"], "loss", ids)
            for name in found:
                values[name] = values.get(name, 0.0) + means[f"{index}/{name}"] / len(losses)
        norm = numbers[-1] if len(norms) == 1 else math.hypot(*numbers[len(tensors) :])
        self._require_finite(norm, "gradient", [name for names in shown for name in names])
        return values | {"grad_norm": norm}

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Torch's global generators begin each step from the seed, the step and the process, and are put back."""
        device = self.processes.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            number = (self.config.seed * MAX_STEPS + self.step) * self.processes.world_size + self.processes.rank
            torch.manual_seed(number % 2**63)
            yield

    def _require_finite(self, value: float, what: str, ids: Sequence[str]) -> None:
        if math.isfinite(value):
            return
        ids = self.processes.all_gather(ids)
        samples = f" on the samples {', '.join(ids)}: look at them" if ids else ": look at its batch"
        raise NonFiniteLossError(
            f"the {what} became {value} at step {self.step + 1}{samples}, or lower the learning rate",
            step=self.step + 1,
            ids=tuple(ids),
        )

    def _report(self, error: NonFiniteLossError) -> None:
        if self.folder is not None and self.processes.is_main:
            values = {"step": error.step, "ids": list(error.ids), "message": str(error)}
            path = self.folder.write_json(f"nonfinite_{error.step:06d}.json", values)
            logger.error("The samples stand in %s", path)

    def _log(self, rate: float) -> None:
        record = self._means.record(step=self.step, learning_rate=rate)
        self.history.append(record)
        seconds, waiting = self.seconds - self._logged_at[0], self.seconds_waiting - self._logged_at[1]
        self._logged_at = (self.seconds, self.seconds_waiting)
        if not self.processes.is_main:
            return
        fraction = {"waiting_fraction": round(waiting / seconds, 4) if seconds else 0.0}
        if self.folder is not None:
            self.folder.append_metrics({"kind": "train", **asdict(record), **fraction})
        numbers = {"loss": record.loss, "grad_norm": record.grad_norm, "learning_rate": record.learning_rate}
        numbers |= fraction | {f"loss_{name}": value for name, value in record.terms.items()}
        for tracker in self.trackers:
            tracker.numbers({f"train/{name}": value for name, value in numbers.items()}, record.step)

    def _write_finished_model(self) -> None:
        """Write the model into the run folder, unless the one of this step is there."""
        if self.folder is None or not isinstance(self.task, ModelTask):
            return
        if self.processes.broadcast(model_step(self.folder) != self.step):
            self.write_model(self.folder.model)

    @contextmanager
    def _model_writer(self) -> Iterator[Callable[[Path], None]]:
        """What writes the model for use into a folder that is not there yet; nothing, where the task has no model."""
        if not isinstance(self.task, ModelTask):
            yield lambda folder: None
            return
        with self.averaged():
            write = self.task.model_writer()

            def write_with_step(folder: Path) -> None:
                folder.mkdir(exist_ok=True)
                write(folder)
                (folder / STEP_FILE).write_text(f'{{"step": {self.step}}}\n', encoding="utf-8")

            yield write_with_step

    def _weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the parameters, inside of :meth:`_model_writer`."""
        averages = {} if self.ema is None else self.ema.averages
        if isinstance(self.task, ModelTask):
            # The model holds the averages, or else the parameters; while it does, the parameters are in their place.
            return self._gathered("parameters/", averages)
        return self._gathered("parameters/", self.parameters) | self._gathered("average/", averages)

    def _gathered(self, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{prefix}{name}": full_tensor(value.detach()) for name, value in tensors.items()}

    def _new_ema(self) -> Ema | None:
        config = self.config
        return Ema(self.parameters, config.ema_decay, WARMUPS[config.ema_warmup]) if config.ema_decay else None


def newest_checkpoint(folder: RunFolder, processes: Processes) -> Path | None:
    """Put a run folder in order after a kill, and find the checkpoint to continue from; every process must call."""
    found: Path | None = None
    problem: str | None = None
    if processes.is_main:
        try:
            found = put_in_order(folder)
        except InputError as error:
            problem = str(error)  # The others must hear of it, or they would wait.
    found, problem = processes.broadcast((found, problem))
    if problem is not None:
        raise InputError(problem)
    return found


def model_step(folder: RunFolder) -> int | None:
    """How many steps the finished model of a run was trained; None where there is none."""
    try:
        return int(json.loads((folder.model / STEP_FILE).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
