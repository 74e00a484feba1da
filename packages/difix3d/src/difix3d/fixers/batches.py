"""Fixing any number of rendered views: batches of one size, and no more work than a round is worth."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from difix3d.fixers.contract import FixedView, FixRequest, resident, views_of
from difix_model.gate.verdict import NOT_ASKED
from splat_recon.scene.scene import View

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from difix3d.fixers.contract import ViewFixer
    from splat_render.cameras import Camera
    from splat_render.output import RenderOutput

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RenderedView:
    """A render to fix, and the photos to fix it with."""

    rgb: Float[Tensor, "h w c=3"]
    """What the splat shows, sRGB in [0, 1]."""

    alpha: Float[Tensor, "h w"] | None
    """Its opacity in [0, 1]; None where it is not known."""

    camera: Camera
    """Where it was rendered."""

    references: tuple[View, ...]
    """Captured views, nearest first; any number."""

    @classmethod
    def of(cls, camera: Camera, output: RenderOutput, references: Sequence[View]) -> RenderedView:
        """Of a rasterizer's output."""
        return cls(
            rgb=output.rgb.clamp(0, 1),
            alpha=output.alpha[..., 0].clamp(0, 1),
            camera=camera,
            references=tuple(references),
        )


def photo(view: View, *, device: str | torch.device = "cpu") -> Float[Tensor, "h w 3"]:
    """A captured photo as float sRGB in [0, 1]."""
    return torch.tensor(view.rgb_u8, device=device).float() / 255


def fixed_views(fixer: ViewFixer, rendered: Sequence[RenderedView], *, batch_size: int) -> Iterator[FixedView]:
    """Fix rendered views one batch at a time, in order; views of different sizes never share a batch.

    Args:
        fixer: What fixes.
        rendered: What to fix.
        batch_size: Most views that the fixer gets at a time.
    """
    for batch in _batches(rendered, batch_size):
        rgb = torch.stack([view.rgb for view in batch])
        alphas = [view.alpha for view in batch if view.alpha is not None]
        request = FixRequest(
            rgb=rgb,
            alpha=torch.stack(alphas) if len(alphas) == len(batch) else None,
            cameras=tuple(view.camera for view in batch),
            references=tuple(tuple(photo(each, device=rgb.device) for each in view.references) for view in batch),
        )
        yield from views_of(fixer(request))


def _batches(rendered: Sequence[RenderedView], batch_size: int) -> Iterator[list[RenderedView]]:
    """Runs of neighbors that have the same size."""
    batch: list[RenderedView] = []
    for view in rendered:
        if batch and (len(batch) == batch_size or view.rgb.shape != batch[0].rgb.shape):
            yield batch
            batch = []
        batch.append(view)
    if batch:
        yield batch


def fix_round(
    fixer: ViewFixer,
    rendered: Sequence[RenderedView],
    *,
    distances: Sequence[float],
    batch_size: int,
    num_probe_views: int,
    min_alpha: float = 0.0,
) -> list[FixedView]:
    """Fix the renders of a round.

    A gate lets changes through where a render is bad. Those farthest from any photo are the worst ones as a rule, so
    they come first: if the fixer leaves even them as they are, bit for bit, where they are learned from, it is not
    asked about the others. (What is transparent is filled whatever the gate, and is not learned from.)

    Args:
        fixer: What fixes.
        rendered: What to fix.
        distances: How far each is from the captured view that is nearest to it.
        batch_size: Most views that the fixer gets at a time.
        num_probe_views: How many come first; 0: all are fixed in order.
        min_alpha: Pixels are learned from where the opacity is above this.
    """
    order = sorted(range(len(rendered)), key=lambda index: -distances[index])
    probes = sorted(order[:num_probe_views]) if num_probe_views < len(rendered) else []
    fixed: dict[int, FixedView] = {}

    def fix(indices: Sequence[int]) -> None:
        views = fixed_views(fixer, [rendered[index] for index in indices], batch_size=batch_size)
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
