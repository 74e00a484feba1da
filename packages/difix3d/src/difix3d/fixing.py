"""The fixes of a round's renders, and no more work for them than they are worth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from difix3d.enhance import fixed_renders
from difix3d.fixers import at_hand

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from difix3d.fixers import ViewFixer
    from splat_recon.scene.scene import View

logger = logging.getLogger(__name__)


def fixes_of_round(
    fixer: ViewFixer,
    rendered: Sequence[Float[Tensor, "_h _w 3"]],
    references: Sequence[Sequence[View]],
    *,
    distances: Sequence[float],
    batch_size: int,
    ask_first: int,
) -> list[Float[Tensor, "_h _w 3"]]:
    """Fix the renders of a round, with each of their references, and take the mean of each one's fixes.

    A gate lets changes through where a render is bad. Those farthest from any photo are the worst ones as a rule, so
    they come first: if the fixer leaves even them as they are, bit for bit, it is not asked about the others.

    Args:
        fixer: What fixes.
        rendered: Rendered views, sRGB in [0, 1].
        references: One or more captured views for each.
        distances: How far each is from the captured view that is nearest to it.
        batch_size: Most views that the fixer gets at a time.
        ask_first: How many come first; 0: all are fixed in order.
    """
    order = sorted(range(len(rendered)), key=lambda index: -distances[index])
    first = sorted(order[:ask_first]) if ask_first < len(rendered) else []
    fixed: dict[int, Tensor] = {}

    def fix(indices: Sequence[int]) -> None:
        renders = [rendered[index] for index in indices]
        columns = zip(*(references[index] for index in indices), strict=True)
        fixes = [list(fixed_renders(fixer, renders, column, batch_size=batch_size)) for column in columns]
        for index, several in zip(indices, zip(*fixes, strict=True), strict=True):
            fixed[index] = several[0] if len(several) == 1 else torch.stack(several).mean(dim=0)

    with at_hand(fixer):
        fix(first)
        if first and all(torch.equal(fixed[index], rendered[index]) for index in first):
            logger.info("the fixer leaves %d of %d novel views as they are; so are the others", len(first), len(order))
            fixed |= {index: rendered[index] for index in order if index not in fixed}
        else:
            fix([index for index in range(len(rendered)) if index not in fixed])
    return [fixed[index] for index in range(len(rendered))]
