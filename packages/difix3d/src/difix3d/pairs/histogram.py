"""How degraded pairs are: a histogram of the PSNR of degraded images against their photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

LOW_DB, HIGH_DB, STEP_DB = 6, 46, 2
"""The bins: below LOW_DB, then every STEP_DB up to HIGH_DB, then above it."""

COLORS = {
    "sparse": "#0b7a75",
    "cycle": "#d98e04",
    "cross": "#7b3f8c",
    "underfit": "#8a94a6",
    "few": "#3d6cb9",
    "corrupted": "#c44536",
}
OTHER_COLOR = "#444444"


def psnr_bins(values: Sequence[float]) -> list[int]:
    """How many values are in each bin; as many bins as `bin_names` has names."""
    inner = np.arange(LOW_DB, HIGH_DB + 1, STEP_DB)
    return np.bincount(np.digitize(values, inner), minlength=len(inner) + 1).tolist()


def bin_names() -> list[str]:
    """What each bin holds, in dB."""
    inner = [f"{low} to {low + STEP_DB}" for low in range(LOW_DB, HIGH_DB, STEP_DB)]
    return [f"below {LOW_DB}", *inner, f"{HIGH_DB} and above"]


def draw_histogram(path: Path, bins: Mapping[str, Sequence[int]]) -> None:
    """Draw the bins of several strategies on top of each other into a PNG file.

    Args:
        bins: Counts by strategy, as `psnr_bins` gives them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lefts = np.arange(LOW_DB - STEP_DB, HIGH_DB + 1, STEP_DB)
    below = np.zeros(len(lefts))
    for strategy, counts in bins.items():
        color = COLORS.get(strategy, OTHER_COLOR)
        axes.bar(lefts, counts, width=0.92 * STEP_DB, bottom=below, align="edge", color=color, label=strategy)
        below = below + np.asarray(counts)
    axes.set_xlabel(
        f"PSNR of the degraded image against the photo (dB; the outer bars: below {LOW_DB}, {HIGH_DB} and above)"
    )
    axes.set_ylabel("pairs")
    axes.set_xlim(LOW_DB - STEP_DB, HIGH_DB + STEP_DB)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if bins:
        axes.legend(frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})
