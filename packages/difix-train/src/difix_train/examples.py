"""Test pairs to look at: render, fixed, clean image and reference side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from difix_model.config import FIRST_REFERENCE_VIEW, RENDERED_VIEW
from difix_train.dataset import Draw, PairDataset
from difix_train.evaluate import Fix
from report_pages import beside, stacked

CELL_WIDTH = 320
"""Width in pixels of a picture in the grid; smaller ones keep theirs."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """The pictures of one pair, as bytes."""

    id: str
    rendered: UInt8[np.ndarray, "h w 3"]
    fixed: UInt8[np.ndarray, "h w 3"]
    clean: UInt8[np.ndarray, "h w 3"]
    reference: UInt8[np.ndarray, "h w 3"] | None
    """The first one shown; None without references."""


def fixed_example(fix: Fix, dataset: PairDataset, index: int, device: torch.device | str) -> Example:
    """Fix one pair with its own references.

    Args:
        device: Where ``fix`` computes.
    """
    pair = dataset.pairs[index]
    x, x_clean = dataset.whole_sample(Draw(index=index, reference_index=index if pair.references else None))
    fixed = fix(x[None].to(device), pair.prompt)[0, RENDERED_VIEW]
    return Example(
        id=pair.id,
        rendered=_bytes(x[RENDERED_VIEW]),
        fixed=_bytes(fixed),
        clean=_bytes(x_clean[RENDERED_VIEW]),
        reference=_bytes(x[FIRST_REFERENCE_VIEW]) if len(x) > FIRST_REFERENCE_VIEW else None,
    )


def grid(examples: Sequence[Example]) -> UInt8[np.ndarray, "h w 3"]:
    """One row for each example: render, fixed, clean image, and the reference where there is one."""
    shown = ([e.rendered, e.fixed, e.clean, e.reference] for e in examples)
    return stacked([beside([_cell(each) for each in row if each is not None], scaled=False) for row in shown])


def _cell(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if width <= CELL_WIDTH:
        return picture
    size = (CELL_WIDTH, max(1, round(height * CELL_WIDTH / width)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _bytes(x: Float[Tensor, "c=3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    rgb = (x.detach().float().cpu() * 0.5 + 0.5).clamp(0, 1)
    return (rgb * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
