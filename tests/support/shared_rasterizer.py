"""A stand-in for gsplat's exchange between GPUs: every process gathers all Gaussians and renders them by itself."""

from typing import Any

import torch
import torch.distributed.nn.functional as shared
from torch import Tensor

from splat_render import Camera, Gaussians, RenderConfig, make_rasterizer
from splat_render.output import SharedRenderOutput


class GatheringRasterizer:
    """In the place of `SharedGsplatRasterizer`, on CPUs."""

    def __init__(self, config: RenderConfig) -> None:
        self.rasterize = make_rasterizer("cpu", config)

    def __call__(
        self, gaussians: Gaussians, camera: Camera, *, sh_degree: int, background: Tensor | None = None
    ) -> SharedRenderOutput:
        every: Any = {name: torch.cat(shared.all_gather(tensor)) for name, tensor in gaussians.parameters().items()}
        found = self.rasterize(Gaussians(**every), camera, sh_degree=sh_degree, background=background)
        # Density control would look at the statistics of all Gaussians, where each process has its own only.
        return SharedRenderOutput(rgb=found.rgb, alpha=found.alpha, depth=found.depth, stats=found.stats, all_stats=())
