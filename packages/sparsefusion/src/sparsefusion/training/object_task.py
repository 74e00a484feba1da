"""What all trainings on objects have in common: their place in the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparsefusion.checkpoints import SparseFusionModel, save_model
from train_runs import EpochSampler, TaskState

MODEL_FILE = "model.safetensors"
"""The three networks of a training, in its folders."""


class ObjectTask:
    """The part of a task that says where it is in the data."""

    sampler: EpochSampler
    """Which samples a step takes."""

    def state(self) -> TaskState:
        """Where it is in the data."""
        return TaskState(values=self.sampler.state())

    def load_state(self, state: TaskState) -> None:
        """Go on from there."""
        self.sampler.load_state(state.values)


class NetworksTask(ObjectTask):
    """A task that trains some of the three networks, and writes all."""

    model: SparseFusionModel
    """The networks."""

    def model_writer(self) -> Callable[[Path], None]:
        """Writes all three networks."""
        return lambda folder: save_model(self.model, folder / MODEL_FILE, half=False)
