"""Corruptions of a render that only its reference can undo: windows that show something else, or fog over all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from difix_model.identity import NO_DETAIL
from embedded_weights.coarse_pairs import DETAIL_PLANE, RGB

MAX_WINDOWS = 3
"""A corrupted render has between one and so many windows."""

SIDES = (0.15, 0.5)
"""Sides of a window as fractions of the image's."""

FOG_PROB = 0.2
"""Fraction of corrupted renders that lie in fog as a whole instead."""

FOG_CELLS = 4
"""The density of fog is interpolated between so many values per side."""

MAX_SHIFT = 2
"""Cells by which the content of a window is shifted at most, along each axis."""

BLURRED_DETAIL = 0.4
"""What is blurred keeps up to this fraction of its detail."""

Window = Float[Tensor, "c=4 h w"]


def corrupt(image: Window, other: Window, rng: np.random.Generator, *, fog_prob: float = FOG_PROB) -> None:
    """Corrupt a coarse render, in place.

    Args:
        image: The render: RGB in [0, 1] and detail.
        other: Another image of the same size; parts of it appear in some windows.
        rng: Draws where and how.
        fog_prob: Probability of fog over the whole image instead of corrupted windows.
    """
    kinds: tuple[Callable[[Window, Window, np.random.Generator], Window], ...] = (
        _mean_fill, _mean_fill, _black_hole, _patch_swap, _patch_swap, _blur, _shift,
    )  # fmt: skip
    if rng.random() < fog_prob:
        image.copy_(_fog(image, rng))
        return
    for _ in range(int(rng.integers(1, MAX_WINDOWS + 1))):
        rows, columns = (window(side, SIDES, rng) for side in image.shape[-2:])
        kind = kinds[int(rng.integers(len(kinds)))]
        image[:, rows, columns] = kind(image[:, rows, columns], other[:, rows, columns], rng)


def window(side: int, fractions: tuple[float, float], rng: np.random.Generator) -> slice:
    """Where a window lies along a side: between two fractions of it long, and every fourth time at one of its ends."""
    length = max(1, round(float(rng.uniform(*fractions)) * side))
    start = int(rng.integers(side - length + 1))
    if rng.random() < 0.25:
        start = 0 if rng.random() < 0.5 else side - length
    return slice(start, start + length)


def darkened(shown: Window, factor: float | Tensor) -> Window:
    """The same with a fraction of its light and of its detail."""
    return torch.cat([shown[RGB] * factor, softened(shown, factor)[DETAIL_PLANE:]])


def softened(shown: Window, factor: float | Tensor) -> Window:
    """The same with a fraction of its detail."""
    return torch.cat([shown[RGB], NO_DETAIL + (shown[DETAIL_PLANE:] - NO_DETAIL) * factor])


def _fog(image: Window, rng: np.random.Generator) -> Window:
    """Fog of one color over all: the image's own, or black."""
    own = image[RGB].mean(dim=(1, 2), keepdim=True)
    color = own * float(rng.uniform(0, 1.2)) if rng.random() < 0.8 else torch.zeros_like(own)
    values = torch.from_numpy(rng.uniform(-0.3, 0.3, size=(1, 1, FOG_CELLS, FOG_CELLS))).float()
    spread = functional.interpolate(values, size=image.shape[-2:], mode="bilinear", align_corners=True)[0]
    density = (spread + float(rng.uniform(0.1, 0.9))).clamp(0, 0.95)
    rgb = image[RGB] + density * (color.clamp(0, 1) - image[RGB])
    return torch.cat([rgb, softened(image, 1 - density)[DETAIL_PLANE:]])


def _mean_fill(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """Nothing but the mean color."""
    del other, rng
    return softened(shown.mean(dim=(1, 2), keepdim=True).expand_as(shown), 0.0)


def _black_hole(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """A hole."""
    del other, rng
    return darkened(shown, 0.0)


def _patch_swap(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """What belongs elsewhere: a floater, more or less blurred."""
    del shown
    return softened(other, float(rng.uniform()))


def _blur(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """Averages over a few cells."""
    del other
    height, width = (max(1, side // int(rng.integers(2, 5))) for side in shown.shape[-2:])
    small = functional.adaptive_avg_pool2d(shown[None], (height, width))
    large = functional.interpolate(small, size=shown.shape[-2:], mode="bilinear", align_corners=False)[0]
    return softened(large, float(rng.uniform(0, BLURRED_DETAIL)))


def _shift(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """Moved by a few cells, as wrong geometry does."""
    del other
    shift = [int(step) for step in rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, size=2)]
    return shown.roll(shift, dims=(1, 2))
