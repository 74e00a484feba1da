"""Density control as Markov chain Monte Carlo (Kheradmand et al. 2024, arXiv:2404.09591)."""

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from splat_recon.config import McmcConfig
from splat_recon.gaussians.densify import randn, rotated_by_quats
from splat_recon.optim import NEW, GaussianOptimizer
from splat_render.gaussians import Gaussians
from splat_render.output import RenderStats
from splat_render.upload import constant

logger = logging.getLogger(__name__)

MAX_COPIES = 51
"""A Gaussian is shared by at most this many in one relocation (gsplat's table size)."""

NOISE_STEEPNESS = 100.0
"""Steepness of the gate that gives noise to faint Gaussians only (the paper's k)."""

NOISE_OPACITY = 0.005
"""Opacity at which the gate is half open."""


class Mcmc:
    """Dead Gaussians move onto living ones, the number grows to a cap, and faint ones wander."""

    def __init__(self, config: McmcConfig, *, generator: torch.Generator) -> None:
        self.config = config
        self._generator = generator

    def after_step(self, optimizer: GaussianOptimizer, stats: Sequence[RenderStats], step: int) -> None:
        """See `DensityControl.after_step`."""
        config = self.config
        if self.is_due(step):
            num_moved = relocate_dead(optimizer, config.min_opacity, self._generator)
            num = len(optimizer.gaussians)
            num_added = max(0, min(config.cap_max, int((1 + config.growth) * num)) - num)
            if num_added:
                add(optimizer, num_added, config.min_opacity, self._generator)
            logger.debug("step %d: %d moved, %d added, %d Gaussians now", step, num_moved, num_added, num + num_added)
        size: float | Tensor = optimizer.means_rate(step) * config.noise_lr
        if optimizer.stopped is not None:
            size = torch.where(optimizer.stopped, 0.0, size)
        inject_noise(optimizer.gaussians, size, self._generator)

    def is_due(self, step: int) -> bool:
        """See `DensityControl.is_due`."""
        config = self.config
        return config.refine_start < step < config.refine_stop and step % config.refine_every == 0

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: the chain has no memory besides the Gaussians and the generator."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to continue."""


def relocated(
    opacities: Float[Tensor, " n"], scales: Float[Tensor, "n 3"], num_copies: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Opacity and scale of each of `num_copies` equal Gaussians that together look like one (paper, equation 9).

    With N copies the opacity o' solves (1 - o')^N = 1 - o, and the scale is multiplied by o over the sum of
    (-1)^k binom(i - 1, k) o'^(k+1) / sqrt(k + 1) for i = 1..N, k = 0..i-1. Shares are limited to 1..`MAX_SHARES`.
    The sum alternates with huge terms, so it is computed in float64; summed over i first, it is one short series:
    the binomials of a column add up to binom(N, k + 1).
    """
    copies = num_copies.clamp(1, MAX_COPIES)
    o = opacities.double()
    shared = -torch.expm1(torch.log1p(-o) / copies)
    k = torch.arange(MAX_COPIES, device=o.device, dtype=torch.float64)
    binomials = torch.tensor(
        [[math.comb(n, column + 1) for column in range(MAX_COPIES)] for n in range(MAX_COPIES + 1)],
        dtype=torch.float64,
        device=o.device,
    )
    terms = binomials[copies] * (1 - 2 * (k % 2)) * shared[:, None] ** (k + 1) / torch.sqrt(k + 1)
    factor = o / terms.sum(dim=-1)
    return shared.to(opacities), (factor[:, None] * scales).to(scales)


@torch.no_grad()
def relocate_dead(optimizer: GaussianOptimizer, min_opacity: float, generator: torch.Generator) -> int:
    """Move Gaussians of at most `min_opacity` onto living ones, drawn by opacity; returns how many moved.

    Nothing happens where all are dead. The living that were drawn lose their moments; the moved keep theirs,
    as in gsplat.
    """
    gaussians = optimizer.gaussians.detach()
    dead = gaussians.opacities <= min_opacity
    dead_idx, alive_idx = torch.nonzero(dead).flatten(), torch.nonzero(~dead).flatten()
    if len(dead_idx) == 0 or len(alive_idx) == 0:
        return 0
    drawn_idx = alive_idx[_drawn(gaussians.opacities[alive_idx], len(dead_idx), generator)]
    changed = _with_copies(gaussians, drawn_idx, min_opacity)
    source_idx = torch.arange(len(gaussians), device=gaussians.device)
    source_idx[drawn_idx] = NEW
    moved_from_idx = torch.arange(len(gaussians), device=gaussians.device)
    moved_from_idx[dead_idx] = drawn_idx
    optimizer.replace(changed.mapped(lambda tensor: tensor[moved_from_idx]), source_idx)
    return len(dead_idx)


@torch.no_grad()
def add(optimizer: GaussianOptimizer, num: int, min_opacity: float, generator: torch.Generator) -> None:
    """Append `num` Gaussians that share the place and weight of existing ones, drawn by opacity."""
    gaussians = optimizer.gaussians.detach()
    drawn_idx = _drawn(gaussians.opacities, num, generator)
    changed = _with_copies(gaussians, drawn_idx, min_opacity)
    all_idx = torch.arange(len(gaussians), device=gaussians.device)
    from_idx = torch.cat([all_idx, drawn_idx])
    source_idx = torch.cat([all_idx, drawn_idx.new_full((num,), NEW)])
    optimizer.replace(changed.mapped(lambda tensor: tensor[from_idx]), source_idx)


@torch.no_grad()
def inject_noise(gaussians: Gaussians, size: float | Float[Tensor, ""], generator: torch.Generator) -> None:
    """Move the centers by noise of each Gaussian's own shape, times `size`; opaque ones stay where they are."""
    gate = torch.sigmoid(-NOISE_STEEPNESS * (gaussians.opacities - NOISE_OPACITY))
    noise = randn((len(gaussians), 3), generator, gaussians.means) * gate[:, None] * size
    conjugates = gaussians.quats_wxyz * constant((1.0, -1.0, -1.0, -1.0), gaussians.device)
    own_axes = rotated_by_quats(conjugates, noise) * gaussians.scales**2
    gaussians.means.add_(rotated_by_quats(gaussians.quats_wxyz, own_axes))


def _drawn(opacities: Float[Tensor, " n"], num: int, generator: torch.Generator) -> Int64[Tensor, " m"]:
    """`num` indices drawn with replacement in proportion to opacity; the cumulative sum has no limit of 2^24."""
    cumulative = torch.cumsum(opacities.detach().double(), dim=0)
    draws = torch.rand(num, generator=generator, dtype=torch.float64, device=opacities.device) * cumulative[-1]
    return torch.searchsorted(cumulative, draws, right=True).clamp_max(len(cumulative) - 1)


def _with_copies(gaussians: Gaussians, drawn_idx: Int64[Tensor, " m"], min_opacity: float) -> Gaussians:
    """The Gaussians after those drawn have given a part of their weight to each time they were drawn."""
    counts = torch.bincount(drawn_idx, minlength=len(gaussians))
    shared_idx = torch.nonzero(counts).flatten()
    opacities, scales = relocated(gaussians.opacities[shared_idx], gaussians.scales[shared_idx], counts[shared_idx] + 1)
    opacities = opacities.clamp(min_opacity, 1 - torch.finfo(torch.float32).eps)
    logit_opacities, log_scales = gaussians.logit_opacities.clone(), gaussians.log_scales.clone()
    logit_opacities[shared_idx] = torch.logit(opacities)
    log_scales[shared_idx] = torch.log(scales)
    return Gaussians(**{**gaussians.parameters(), "logit_opacities": logit_opacities, "log_scales": log_scales})
