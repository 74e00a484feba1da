"""Fixing any number of rendered views, in batches of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from difix3d.fixers.contract import FixedView, FixRequest, views_of
from splat_recon.scene.scene import View
from splat_recon.views.view_set import rgb_from_bytes
from splat_render.upload import uploaded

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from difix3d.fixers.contract import ViewFixer
    from splat_render.cameras import Camera
    from splat_render.output import RenderOutput


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


PHOTO_BYTES = 2 * 2**30
"""Photos that are kept on a GPU as references, in bytes: 80 of two megapixels."""

_PHOTOS: WeakKeyDictionary[View, Tensor] = WeakKeyDictionary()
"""Photos on a GPU, for as long as their views live: the same tensor each time, so that a fixer knows it again."""


def photo(view: View, *, device: str | torch.device = "cpu") -> Float[Tensor, "h w 3"]:
    """A captured photo as float sRGB in [0, 1]; on a GPU it is kept for the next round while there is room."""
    kept, device = _PHOTOS.get(view), torch.device(device)
    if kept is not None and kept.device.type == device.type and device.index in (None, kept.device.index):
        return kept
    rgb = rgb_from_bytes(uploaded(torch.tensor(view.rgb_u8), device))
    if device.type == "cuda" and rgb.nbytes + sum(one.nbytes for one in _PHOTOS.values()) <= PHOTO_BYTES:
        _PHOTOS[view] = rgb
    return rgb


def fixed_views(fixer: ViewFixer, rendered: Sequence[RenderedView], *, batch_size: int) -> Iterator[FixedView]:
    """Fix rendered views one batch at a time, in order; views of different sizes never share a batch."""
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
