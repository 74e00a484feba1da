"""Training of a ControlNet: a copy of the UNet's encoder learns what to add for a map of view 0; the UNet is frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from diffsplat.denoiser import MultiViewControlNet, MultiViewDenoiser
from diffsplat.sampling import ControlCondition
from diffsplat.training.config import DenoiserTrainConfig
from diffsplat.training.denoising import DENOISER_WEIGHTS, DenoiserTask, network_writer
from diffsplat.training.views import ObjectViews
from train_runs import ParameterGroup

TrainedControl = Literal["depth", "normal"]
"""Maps that trainings can make; edges (canny) are not made here."""


@torch.no_grad()
def control_maps(views: ObjectViews, control: TrainedControl) -> Float[Tensor, "b 3 h w"]:
    """The map of view 0 of each object, in [0, 1], white where there is nothing.

    Args:
        views: Of the objects.
        control: `normal`, in view 0's frame as colors; or `depth`, nearness: 1 less the share of the largest depth.
    """
    if control == "normal":
        return views.normal[:, 0]
    mask, depth = views.mask[:, 0], views.depth[:, 0]
    farthest = depth.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    near = (1 - depth / farthest) * mask + (1 - mask)
    return near.expand(-1, 3, -1, -1)


class ControlNetTask(DenoiserTask):
    """What a training loop needs of a ControlNet. Losses and dropped conditions are the denoiser's."""

    def __init__(
        self,
        config: DenoiserTrainConfig,
        controlnet: MultiViewControlNet,
        model: MultiViewDenoiser,
        *parts: Any,
        control: TrainedControl,
        **options: Any,
    ) -> None:
        """Put the parts together.

        Args:
            config: How it is trained.
            controlnet: What is trained; see `MultiViewControlNet.from_denoiser`.
            model: Frozen, of the model with a text.
            parts: The others of `DenoiserTask`: GSVAE, GSRecon, encoder and objects.
            control: Which map.
            options: Those of `DenoiserTask`.
        """
        super().__init__(config, model.eval().requires_grad_(False), *parts, **options)
        self.controlnet = controlnet
        self.kind: TrainedControl = control

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters of the ControlNet alike."""
        trained = dict(self.controlnet.network.named_parameters())
        return [ParameterGroup(parameters=trained, config=self.config.optimizer)]

    def control(self, batch: ObjectViews) -> ControlCondition:
        """The network and the maps of a batch."""
        return ControlCondition(network=self.controlnet, maps=control_maps(batch, self.kind))

    def model_writer(self) -> Callable[[Path], None]:
        """Writes weights and configuration as published ones are."""
        return network_writer(self.controlnet.network, "MVControlNetModel")

    def read_model(self, folder: Path) -> None:
        """Take over weights that were written."""
        self.controlnet.network.load_state_dict(load_file(folder / DENOISER_WEIGHTS))
