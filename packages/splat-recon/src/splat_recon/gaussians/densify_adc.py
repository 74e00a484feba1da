"""Adaptive density control of the 3DGS paper, with the decisions of gsplat's DefaultStrategy."""

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from splat_recon.config import AdcConfig
from splat_recon.gaussians.densify import MIN_GAUSSIANS, randn, rotated_by_quats
from splat_recon.optim import NEW, GaussianOptimizer
from splat_render.gaussians import Gaussians
from splat_render.output import RenderStats
from splat_render.upload import constant

logger = logging.getLogger(__name__)

SPLIT_SHRINK = 1.6
"""Halves of a split Gaussian are smaller by this factor (3DGS paper)."""


class AdaptiveDensityControl:
    """Small Gaussians with large image gradients are duplicated, large ones split; faint and huge ones are removed.

    Args:
        extent: Size of the scene in scene units.
    """

    def __init__(self, config: AdcConfig, *, extent: float, generator: torch.Generator) -> None:
        self.config = config
        self._extent = extent
        self._generator = generator
        self._grad2d_sum: Tensor | None = None
        self._num_seen: Tensor | None = None

    def after_step(self, optimizer: GaussianOptimizer, stats: Sequence[RenderStats], step: int) -> None:
        """See `DensityControl.after_step`."""
        config = self.config
        if step >= config.refine_stop:
            return
        for render in stats:
            self._accumulate(render, num_renders=len(stats))
        if self._refines(step):
            num_before = len(optimizer.gaussians)
            self._grow(optimizer)
            num_grown = len(optimizer.gaussians) - num_before
            self._prune(optimizer, prune_large=0 < config.reset_every < step)
            self._grad2d_sum = self._num_seen = None
            logger.debug("step %d: %d grown, %d Gaussians now", step, num_grown, len(optimizer.gaussians))
        if self._resets(step):
            reset_opacities(optimizer, 2 * config.prune_opacity)

    def is_due(self, step: int) -> bool:
        """See `DensityControl.is_due`."""
        return step < self.config.refine_stop and (self._refines(step) or self._resets(step))

    def _refines(self, step: int) -> bool:
        return step > self.config.refine_start and step % self.config.refine_every == 0

    def _resets(self, step: int) -> bool:
        return self.config.reset_every > 0 and step > 0 and step % self.config.reset_every == 0

    def _accumulate(self, stats: RenderStats, *, num_renders: int) -> None:
        grad = stats.means2d_absgrad if self.config.absgrad else stats.means2d.grad
        if grad is None:
            return
        if self._grad2d_sum is None or self._num_seen is None or len(self._num_seen) != len(grad):
            self._grad2d_sum = grad.new_zeros(len(grad))
            self._num_seen = grad.new_zeros(len(grad))
        # The loss is a mean over the renders; the thresholds are for the gradient of one.
        half_image = constant((stats.width / 2, stats.height / 2), grad.device) * num_renders
        visible = stats.radii_px > 0
        self._grad2d_sum += torch.where(visible, (grad * half_image).norm(dim=-1), 0.0)
        self._num_seen += visible

    @torch.no_grad()
    def _grow(self, optimizer: GaussianOptimizer) -> None:
        if self._grad2d_sum is None or self._num_seen is None:
            return
        grad2d = self._grad2d_sum / self._num_seen.clamp_min(1)
        gaussians = optimizer.gaussians
        growing = grad2d > self.config.grow_grad2d
        growing &= _within_cap(grad2d, growing, len(gaussians), self.config.cap_max)
        small = gaussians.scales.amax(dim=-1) <= self.config.grow_scale3d * self._extent
        if bool(growing.any()):
            grow(
                optimizer,
                duplicated=growing & small,
                split=growing & ~small,
                generator=self._generator,
                revised_opacity=self.config.revised_opacity,
            )

    @torch.no_grad()
    def _prune(self, optimizer: GaussianOptimizer, *, prune_large: bool) -> None:
        gaussians = optimizer.gaussians
        pruned = gaussians.opacities < self.config.prune_opacity
        if prune_large:
            pruned |= gaussians.scales.amax(dim=-1) > self.config.prune_scale3d * self._extent
        remove(optimizer, pruned)

    def tensors(self) -> dict[str, Tensor]:
        """The gradient averages under way."""
        if self._grad2d_sum is None or self._num_seen is None:
            return {}
        return {"grad2d_sum": self._grad2d_sum, "num_seen": self._num_seen}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue the averages that `tensors` gave."""
        self._grad2d_sum, self._num_seen = tensors.get("grad2d_sum"), tensors.get("num_seen")


def _within_cap(
    grad2d: Float[Tensor, " n"], growing: Bool[Tensor, " n"], num_gaussians: int, cap_max: int | None
) -> Bool[Tensor, " n"]:
    """True for those that may grow: all, or the ones with the highest gradients when the cap is near."""
    if cap_max is None or num_gaussians + int(growing.sum()) <= cap_max:
        return torch.ones_like(growing)
    allowed = torch.zeros_like(growing)
    order = torch.sort(torch.where(growing, grad2d, 0.0), descending=True, stable=True).indices
    allowed[order[: max(0, cap_max - num_gaussians)]] = True
    return allowed


@torch.no_grad()
def grow(
    optimizer: GaussianOptimizer,
    *,
    duplicated: Bool[Tensor, " n"],
    split: Bool[Tensor, " n"],
    generator: torch.Generator,
    revised_opacity: bool = False,
) -> None:
    """Duplicate some Gaussians in place and split others into two that are drawn from their own distribution.

    Order afterwards: the ones that were not split, the copies, the first halves, the second halves. Copies and halves
    start without optimizer moments.
    """
    gaussians = optimizer.gaussians.detach()
    all_idx = torch.arange(len(gaussians), device=gaussians.device)
    kept_idx, copy_idx, split_idx = all_idx[~split], all_idx[duplicated & ~split], all_idx[split]
    parents = gaussians.mapped(lambda tensor: tensor[split_idx])
    half_changes: dict[str, Tensor] = {"log_scales": parents.log_scales - math.log(SPLIT_SHRINK)}
    if revised_opacity:
        half_changes["logit_opacities"] = torch.logit(1 - torch.sqrt(1 - parents.opacities))
    offsets = rotated_by_quats(
        parents.quats_wxyz, parents.scales * randn((2, len(parents), 3), generator, parents.means)
    )
    changed = {}
    for name, tensor in gaussians.parameters().items():
        if name == "means":
            halves = [tensor[split_idx] + offsets[0], tensor[split_idx] + offsets[1]]
        else:
            halves = [half_changes.get(name, tensor[split_idx])] * 2
        changed[name] = torch.cat([tensor[kept_idx], tensor[copy_idx], *halves])
    num_new = len(copy_idx) + 2 * len(split_idx)
    source_idx: Int64[Tensor, " m"] = torch.cat([kept_idx, kept_idx.new_full((num_new,), NEW)])
    optimizer.replace(Gaussians(**changed), source_idx)


@torch.no_grad()
def remove(optimizer: GaussianOptimizer, pruned: Bool[Tensor, " n"]) -> None:
    """Remove Gaussians, but leave the `MIN_GAUSSIANS` most opaque ones in any case."""
    if not bool(pruned.any()):
        return
    gaussians = optimizer.gaussians.detach()
    num_kept = int((~pruned).sum())
    if num_kept < MIN_GAUSSIANS:
        logger.warning("pruning would leave %d Gaussians: the most opaque %d stay", num_kept, MIN_GAUSSIANS)
        most_opaque = torch.sort(gaussians.logit_opacities, descending=True, stable=True).indices[:MIN_GAUSSIANS]
        pruned = pruned.clone()
        pruned[most_opaque] = False
    kept_idx = torch.nonzero(~pruned).flatten()
    optimizer.replace(gaussians.mapped(lambda tensor: tensor[kept_idx]), kept_idx)


@torch.no_grad()
def reset_opacities(optimizer: GaussianOptimizer, value: float) -> None:
    """Lower every opacity to at most `value`, so that Gaussians must earn theirs again."""
    logit = math.log(value / (1 - value))
    optimizer.set_opacities(optimizer.gaussians.logit_opacities.clamp_max(logit))
