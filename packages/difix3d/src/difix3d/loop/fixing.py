"""Fixing the renders of a round, with no more work than it is worth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from difix3d.fixers.batches import RenderedView, fixed_views
from difix3d.fixers.contract import FixedView, resident
from difix_model.gate.verdict import NOT_ASKED

if TYPE_CHECKING:
    from difix3d.fixers.contract import ViewFixer
    from difix3d.loop.config import ProgressiveConfig

logger = logging.getLogger(__name__)


def fix_round(
    fixer: ViewFixer, rendered: Sequence[RenderedView], distances: Sequence[float], config: ProgressiveConfig
) -> list[FixedView]:
    """Fix the renders of a round.

    A gate lets changes through where a render is bad. Those farthest from any photo are the worst ones as a rule, so
    they come first: if the fixer leaves even them as they are, bit for bit, where they are learned from, it is not
    asked about the others. (What is transparent is filled whatever the gate, and is not learned from.)

    Args:
        distances: How far each is from the captured view that is nearest to it.
        config: How many come first (`rounds.num_probe_views`; 0: all are fixed in order), how many the fixer gets at a
            time, and above which opacity pixels are learned from.
    """
    num_probe_views, min_alpha = config.rounds.num_probe_views, config.mixture.alpha_threshold
    order = sorted(range(len(rendered)), key=lambda index: -distances[index])
    probes = sorted(order[:num_probe_views]) if num_probe_views < len(rendered) else []
    fixed: dict[int, FixedView] = {}

    def fix(indices: Sequence[int]) -> None:
        views = fixed_views(fixer, [rendered[index] for index in indices], batch_size=config.fix_batch_size)
        fixed.update(zip(indices, views, strict=True))

    with resident(fixer):
        fix(probes)
        if probes and all(_leaves(fixed[index], rendered[index], min_alpha) for index in probes):
            logger.info("the fixer leaves %d of %d novel views as they are; so are the others", len(probes), len(order))
            rest = (index for index in order if index not in fixed)
            fixed |= {index: FixedView(rgb=rendered[index].rgb, verdict=NOT_ASKED) for index in rest}
        else:
            fix([index for index in range(len(rendered)) if index not in fixed])
    return [fixed[index] for index in range(len(rendered))]


def _leaves(fixed: FixedView, rendered: RenderedView, min_alpha: float) -> bool:
    """Whether a fix leaves all pixels as they are that are learned from."""
    if rendered.alpha is None:
        return torch.equal(fixed.rgb, rendered.rgb)
    counts = rendered.alpha > min_alpha
    return torch.equal(fixed.rgb[counts], rendered.rgb[counts])
