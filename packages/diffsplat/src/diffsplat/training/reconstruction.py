"""Training of GSRecon: from views of objects to grids whose renders look like them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffsplat.checkpoints import load_into
from diffsplat.gsrecon import GSRecon
from diffsplat.training.config import GSReconMapConfig, GSReconTrainConfig
from diffsplat.training.losses import Perceptual, map_loss, psnr_of_views, render_terms
from diffsplat.training.object_task import ObjectTask
from diffsplat.training.views import ObjectViews, ViewsOfObjects
from train_runs import ParameterGroup


class GSReconRunTask(ObjectTask):
    """What every training of GSRecon shares: the network, the order of the objects and how both are written."""

    def __init__(
        self,
        config: GSReconTrainConfig | GSReconMapConfig,
        objects: ViewsOfObjects,
        *,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.optimizer = config.optimizer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = GSRecon(config.network)
        if start is not None:
            load_into(self.model, dict(start), where="the weights to start from")
        super().__init__(self.model, objects, batch_size=config.batch_size, seed=config.seed)

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters alike."""
        return [ParameterGroup(parameters=dict(self.model.named_parameters()), config=self.optimizer)]


class GSReconTask(GSReconRunTask):
    """What a training loop needs of GSRecon, trained by renders."""

    def __init__(
        self,
        config: GSReconTrainConfig,
        objects: ViewsOfObjects,
        *,
        perceptual: Perceptual | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            config: How it is trained.
            objects: Views to train on.
            perceptual: LPIPS for the renders.
            start: Weights to begin with; None draws them.
        """
        super().__init__(config, objects, start=start)
        self.config, self.perceptual = config, perceptual

    def losses(self, batch: ObjectViews, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Errors of the renders of all views and, if asked for, of the grids."""
        grids = self.model(batch.images, *batch.input_cameras)
        terms: dict[str, Tensor] = {}
        if self.config.map_weight:
            terms["map"] = self.config.map_weight * map_loss(grids, batch)
        if step % self.config.render_every == 0:
            terms |= render_terms(batch.seen_in(grids), batch, self.config, self.perceptual)
        return terms


@torch.no_grad()
def psnr_of_renders(model: GSRecon, objects: ViewsOfObjects, indices: list[int]) -> dict[str, Any]:
    """Mean PSNR of renders of the input views and of the further ones, over objects that were not trained on."""
    inputs, others = [], []
    for index in indices:
        batch = objects.batch([index])
        values = psnr_of_views(batch.seen_in(model(batch.images, *batch.input_cameras)).rgb, batch.rgb)
        inputs += values[: batch.num_inputs]
        others += values[batch.num_inputs :]
    return {"psnr_input_views": sum(inputs) / len(inputs), "psnr_other_views": sum(others) / max(len(others), 1)}
