"""Windows of a render that show something else: what was there, only a reference tells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from difix_model.identity import NO_DETAIL
from difix_train.coarse.pairs import DETAIL_PLANE, RGB

MAX_WINDOWS = 3
"""A damaged render has between one and so many windows."""

SIDES = (0.15, 0.5)
"""Sides of a window as shares of the image's."""

VEIL_PROB = 0.2
"""Share of damaged renders that are veiled as a whole instead."""

VEIL_CELLS = 4
"""A veil's density changes over so many places per side."""

MAX_SHIFT = 2
"""Cells by which what a window shows is moved at most, along each axis."""

BLURRED_DETAIL = 0.4
"""What is blurred keeps up to this share of its detail."""

Window = Float[Tensor, "c=4 h w"]


def damage(image: Window, other: Window, rng: np.random.Generator) -> None:
    """Damage windows of a coarse render, in place.

    Args:
        image: The render: RGB in [0, 1] and detail.
        other: Another image of the same size, which strays into some windows.
        rng: Draws where and how.
    """
    kinds: tuple[Callable[[Window, Window, np.random.Generator], Window], ...] = (
        _levelled, _levelled, _blackened, _strayed, _strayed, _blurred, _moved,
    )  # fmt: skip
    if rng.random() < VEIL_PROB:
        image.copy_(_veiled(image, rng))
        return
    for _ in range(int(rng.integers(1, MAX_WINDOWS + 1))):
        rows, columns = (window(side, SIDES, rng) for side in image.shape[-2:])
        kind = kinds[int(rng.integers(len(kinds)))]
        image[:, rows, columns] = kind(image[:, rows, columns], other[:, rows, columns], rng)


def window(side: int, shares: tuple[float, float], rng: np.random.Generator) -> slice:
    """Where a window lies along a side: between two shares of it long, and every fourth time at one of its ends."""
    length = max(1, round(float(rng.uniform(*shares)) * side))
    start = int(rng.integers(side - length + 1))
    if rng.random() < 0.25:
        start = 0 if rng.random() < 0.5 else side - length
    return slice(start, start + length)


def faded(shown: Window, share: float | Tensor) -> Window:
    """The same with a share of its light and of its detail."""
    return torch.cat([shown[RGB] * share, softened(shown, share)[DETAIL_PLANE:]])


def softened(shown: Window, share: float | Tensor) -> Window:
    """The same with a share of its detail."""
    return torch.cat([shown[RGB], NO_DETAIL + (shown[DETAIL_PLANE:] - NO_DETAIL) * share])


def _veiled(image: Window, rng: np.random.Generator) -> Window:
    """Fog of one colour over all: the image's own, or black."""
    own = image[RGB].mean(dim=(1, 2), keepdim=True)
    colour = own * float(rng.uniform(0, 1.2)) if rng.random() < 0.8 else torch.zeros_like(own)
    places = torch.from_numpy(rng.uniform(-0.3, 0.3, size=(1, 1, VEIL_CELLS, VEIL_CELLS))).float()
    spread = functional.interpolate(places, size=image.shape[-2:], mode="bilinear", align_corners=True)[0]
    density = (spread + float(rng.uniform(0.1, 0.9))).clamp(0, 0.95)
    rgb = image[RGB] + density * (colour.clamp(0, 1) - image[RGB])
    return torch.cat([rgb, softened(image, 1 - density)[DETAIL_PLANE:]])


def _levelled(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """Nothing but the mean colour: fog."""
    del other, rng
    return softened(shown.mean(dim=(1, 2), keepdim=True).expand_as(shown), 0.0)


def _blackened(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """A hole."""
    del other, rng
    return faded(shown, 0.0)


def _strayed(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """What belongs elsewhere: a floater, more or less blurred."""
    del shown
    return softened(other, float(rng.uniform()))


def _blurred(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """Averages over a few cells."""
    del other
    height, width = (max(1, side // int(rng.integers(2, 5))) for side in shown.shape[-2:])
    small = functional.adaptive_avg_pool2d(shown[None], (height, width))
    large = functional.interpolate(small, size=shown.shape[-2:], mode="bilinear", align_corners=False)[0]
    return softened(large, float(rng.uniform(0, BLURRED_DETAIL)))


def _moved(shown: Window, other: Window, rng: np.random.Generator) -> Window:
    """Off its place, as wrong geometry puts it."""
    del other
    shift = [int(step) for step in rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, size=2)]
    return shown.roll(shift, dims=(1, 2))
