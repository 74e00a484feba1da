"""A first training of GSRecon without renders: a few patches of many objects, against ray-cast maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from diffsplat.training.config import GSReconMapConfig
from diffsplat.training.losses import map_errors, wanted_grids
from diffsplat.training.reconstruction import GSReconRunTask
from diffsplat.training.views import ObjectViews, ViewsOfObjects


class GSReconMapTask(GSReconRunTask):
    """What a training loop needs of GSRecon's beginning.

    Most of what GSRecon does can be learned patch by patch, and most patches hold nothing: a step over some of those
    that do costs a fraction of one over all.
    """

    def __init__(self, config: GSReconMapConfig, objects: ViewsOfObjects) -> None:
        super().__init__(config, objects)
        self.config = config

    def losses(self, batch: ObjectViews, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Errors of the drawn patches."""
        side = self.model.config.patch_size

        def cut(maps: Tensor) -> Tensor:
            return rearrange(maps, "b v c (h p1) (w p2) -> b (v h w) (p1 p2) c", p1=side, p2=side)

        wanted, on = (cut(maps) for maps in wanted_grids(batch))
        weight = torch.where(on.amax(dim=(2, 3)) > 0, 1.0, self.config.empty_sampling_weight)
        num = min(self.config.num_tokens, weight.shape[1])
        drawn = torch.multinomial(weight.cpu(), num, generator=generator).to(on.device)
        rows = torch.arange(len(drawn), device=on.device)[:, None]
        patches = self.model.patches(batch.images, *batch.input_cameras)
        patches = rearrange(patches, "(b v) n p -> b (v n) p", v=batch.num_inputs)[rows, drawn]
        found = self.model.predicted(self.model.encoded(patches))
        return {"map": map_errors(found, wanted[rows, drawn], on[rows, drawn])}
