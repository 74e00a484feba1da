"""Training of ElevEst: from which height a picture was taken, as a bin and an offset within it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsplat.elevest import ElevEst
from diffsplat.training.config import ElevEstTrainConfig
from diffsplat.training.reconstruction import WEIGHTS
from diffsplat.training.views import ObjectViews, ViewsOfObjects
from train_runs import EpochSampler, ParameterGroup, TaskState


def elevations_deg(T_world_cam: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b"]:
    """Elevations of cameras that look at the origin, in the released sign: negative is above the horizon."""
    place = T_world_cam[..., :3, 3]
    height = (place[..., 1] / place.norm(dim=-1).clamp(min=1e-9)).clamp(-1, 1)
    return -torch.asin(height) * (180 / math.pi)


class ElevEstTask:
    """What a training loop needs of ElevEst. Of every object one view is drawn, none from above or below the bins."""

    def __init__(
        self,
        config: ElevEstTrainConfig,
        objects: ViewsOfObjects,
        *,
        backbone: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            config: How it is trained.
            objects: Views to train on.
            backbone: Weights of DINOv2 with registers to begin with, in its hub's names; None draws them.
        """
        from diffsplat.checkpoints import load_into

        self.config, self.objects = config, objects
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = ElevEst(config.network)
        if backbone is not None:
            load_into(self.model.backbone, dict(backbone), where="the backbone to start from")
        self.sampler = EpochSampler(len(objects), config.batch_size, seed=config.seed)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The heads, and the backbone with a lower learning rate."""
        from dataclasses import replace

        named = dict(self.model.named_parameters())
        backbone = {name: value for name, value in named.items() if name.startswith("backbone.")}
        heads = {name: value for name, value in named.items() if name not in backbone}
        slower = self.config.optimizer.learning_rate * self.config.backbone_share
        return [
            ParameterGroup(parameters=heads, config=self.config.optimizer),
            ParameterGroup(parameters=backbone, config=replace(self.config.optimizer, learning_rate=slower)),
        ]

    def next_batch(self) -> ObjectViews:
        """Views of the next objects."""
        return self.objects.batch(self.sampler.next_batch()).to(next(self.model.parameters()).device)

    def losses(self, batch: ObjectViews, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Cross entropy of the bins and squared error of the offsets, of one view per object."""
        angles = elevations_deg(batch.T_world_cam)
        network = self.config.network
        usable = ((angles >= network.lowest_deg) & (angles < network.highest_deg)).float().cpu()
        # Where no view is within the bins, any serves: its bin is the nearest.
        usable = torch.where(usable.sum(dim=1, keepdim=True) > 0, usable, 1.0)
        drawn = torch.multinomial(usable, 1, generator=generator)[:, 0].to(angles.device)
        rows = torch.arange(len(drawn), device=angles.device)
        return self.model.losses(batch.rgb[rows, drawn], angles[rows, drawn])

    def state(self) -> TaskState:
        """Where it is in the data."""
        return TaskState(values=self.sampler.state())

    def load_state(self, state: TaskState) -> None:
        """Go on from there."""
        self.sampler.load_state(state.values)

    def model_writer(self) -> Callable[[Path], None]:
        """Writes the weights as published ones are."""
        tensors = {name: value.detach().clone().contiguous() for name, value in self.model.state_dict().items()}
        return lambda folder: save_file(tensors, folder / WEIGHTS)

    def read_model(self, folder: Path) -> None:
        """Take over weights that were written."""
        self.model.load_state_dict(load_file(folder / WEIGHTS))
