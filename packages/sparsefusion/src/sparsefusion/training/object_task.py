"""What trainings of one of the three networks have in common: they write all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparsefusion.checkpoints import SparseFusionModel, save_model
from train_runs import EpochTask

MODEL_FILE = "model.safetensors"
"""The three networks of a training, in its folders."""


class NetworksTask(EpochTask):
    """A task that trains some of the three networks, and writes all."""

    model: SparseFusionModel
    """The networks."""

    def model_writer(self) -> Callable[[Path], None]:
        """Writes all three networks."""
        return lambda folder: save_model(self.model, folder / MODEL_FILE, half=False)
