"""Training of ElevEst: from which height a picture was taken, as a bin and an offset within it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from diffsplat.elevest import ElevEst
from diffsplat.training.config import ElevEstTrainConfig
from diffsplat.training.object_task import ObjectTask
from diffsplat.training.views import ObjectViews, ViewsOfObjects
from train_runs import ParameterGroup


def elevations_deg(T_world_cam: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b"]:
    """Elevations of cameras that look at the origin, in the released sign: negative is above the horizon."""
    place = T_world_cam[..., :3, 3]
    height = (place[..., 1] / place.norm(dim=-1).clamp(min=1e-9)).clamp(-1, 1)
    return -torch.asin(height) * (180 / math.pi)


class ElevEstTask(ObjectTask):
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

        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = ElevEst(config.network)
        if backbone is not None:
            load_into(self.model.backbone, dict(backbone), where="the backbone to start from")
        super().__init__(self.model, objects, batch_size=config.batch_size, seed=config.seed)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The heads, and the backbone with a lower learning rate."""
        from dataclasses import replace

        named = dict(self.model.named_parameters())
        backbone = {name: value for name, value in named.items() if name.startswith("backbone.")}
        heads = {name: value for name, value in named.items() if name not in backbone}
        slower = self.config.optimizer.learning_rate * self.config.backbone_lr_scale
        return [
            ParameterGroup(parameters=heads, config=self.config.optimizer),
            ParameterGroup(parameters=backbone, config=replace(self.config.optimizer, learning_rate=slower)),
        ]

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
