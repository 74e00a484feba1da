"""What every training on objects shares: the order of the objects, and how it and the network are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffsplat.training.views import ObjectViews, ViewsOfObjects
from train_runs import EpochSampler, EpochTask

WEIGHTS = "model.safetensors"
"""The file of a network's weights in the folder `model` of its run."""


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of all that a network holds, as files hold it."""
    return {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}


class ObjectTask(EpochTask):
    """The part of a training task that does not depend on what is learned.

    Args:
        model: What is trained.
        objects: Views to train on.
        batch_size: Objects per step.
        seed: Of their order.
    """

    def __init__(self, model: nn.Module, objects: ViewsOfObjects, *, batch_size: int, seed: int) -> None:
        self.objects = objects
        self.sampler = EpochSampler(len(objects), batch_size, seed=seed)
        self._trained = model

    def next_batch(self) -> ObjectViews:
        """Views of the next objects."""
        return self.objects.batch(self.sampler.next_batch()).to(next(self._trained.parameters()).device)

    def model_writer(self) -> Callable[[Path], None]:
        """Writes the weights as published ones are."""
        tensors = weights_of(self._trained)
        return lambda folder: save_file(tensors, folder / WEIGHTS)

    def read_model(self, folder: Path) -> None:
        """Take over weights that were written."""
        self._trained.load_state_dict(load_file(folder / WEIGHTS))
