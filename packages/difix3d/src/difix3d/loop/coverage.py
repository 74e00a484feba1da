"""Which views of a splat show what few captured views saw."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from difix3d.loop.surface_points import DepthView, Render
from splat_render.cameras import Camera

MAX_SIZE = 64
"""Longer side of the renders that are compared, in pixels."""

MIN_OPAQUE = 0.5
"""Candidates that show something in a smaller fraction of their pixels come last: they have nothing to fix."""


def under_observed(
    candidates: Sequence[Camera],
    captured: Sequence[Camera],
    render: Render,
    num_chosen: int,
    *,
    max_seen: int = 1,
) -> Int64[np.ndarray, " k"]:
    """The candidates that show most of what few views see, one after the other; a chosen one counts as a view then.

    Args:
        max_seen: A point is under-observed if no more views than this see it.

    Returns:
        Indices of candidates, the best first.
    """
    views = [DepthView.rendered(camera, render, max_size=MAX_SIZE) for camera in captured]
    shown = [DepthView.rendered(camera, render, max_size=MAX_SIZE) for camera in candidates]
    points = [one.surface_points() for one in shown]
    counts = [sum((_sees(view, one) for view in views), np.zeros(len(one), dtype=np.int64)) for one in points]
    chosen: list[int] = []
    for _ in range(min(num_chosen, len(shown))):
        scores = [
            -1.0 if index in chosen else _score(count, one.depth.numel(), max_seen)
            for index, (one, count) in enumerate(zip(shown, counts, strict=True))
        ]
        chosen.append(int(np.argmax(scores)))
        best = shown[chosen[-1]]
        counts = [count + _sees(best, one) for one, count in zip(points, counts, strict=True)]
    return np.array(chosen, dtype=np.int64)


def _sees(view: DepthView, p_world: Float64[Tensor, "n 3"]) -> Int64[np.ndarray, " n"]:
    return view.sees(p_world).cpu().numpy().astype(np.int64)


def _score(count: Int64[np.ndarray, " n"], num_pixels: int, max_seen: int) -> float:
    """Fraction of the pixels that are under-observed; halved, and halved again, for views that are mostly empty."""
    opaque = len(count) / num_pixels
    weak = float((count <= max_seen).sum()) / num_pixels
    return weak if opaque >= MIN_OPAQUE else 0.25 * weak
