"""Line plots as SVG text inside a page, by matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.2, 2.6
"""Size of a plot in inches."""

INK, SOFT, GRID = "#1c2530", "#5d6b7e", "#e3e8ef"
"""Colors of text, axes and grid: those of the page's style."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a plot."""

    name: str
    """In the legend; empty for none."""

    color: str
    """As CSS has it."""

    points: Sequence[tuple[float, float]]
    """Points (x, y) from left to right; ones that are not finite are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Lines over a common x axis."""

    title: str
    """Above the plot: what y is, and its unit."""

    lines: Sequence[Line]
    """What is drawn; may be empty."""

    x_label: str = "step"
    """Below the plot."""

    marks: Sequence[float] = ()
    """Where on the x axis dotted vertical lines stand."""

    markers: bool = True
    """Whether each point has a dot."""


def svg(plots: Sequence[Plot]) -> Markup:
    """Plots side by side as one SVG element, whose text stays text; the same bytes for the same plots."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "plots", "font.size": 8, "text.color": INK}):
        figure = Figure(figsize=(WIDTH * max(1, len(plots)), HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, plot in zip(figure.subplots(1, max(1, len(plots)), squeeze=False)[0], plots, strict=False):
            _draw(axes, plot)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def _draw(axes: Axes, plot: Plot) -> None:
    axes.set_title(plot.title, loc="left", fontweight="bold", fontsize=9)
    lines = [(line, [p for p in line.points if math.isfinite(p[0]) and math.isfinite(p[1])]) for line in plot.lines]
    drawn = [(line, points) for line, points in lines if points]
    if not drawn:
        axes.text(0, 0.5, "no measurements", color=SOFT, transform=axes.transAxes)
        axes.set_axis_off()
        return
    for line, points in drawn:
        marker = "o" if plot.markers or len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), color=line.color, marker=marker, markersize=3, label=line.name or None)
    for mark in plot.marks:
        axes.axvline(mark, color="#b6bfcc", linestyle=":", linewidth=1)
    if any(line.name for line, _ in drawn):
        axes.legend(frameon=False, loc="lower right")
    axes.set_xlabel(plot.x_label, color=SOFT)
    axes.grid(axis="y", color=GRID)
    axes.tick_params(colors=SOFT, length=0)
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.spines[["top", "left", "right"]].set_visible(False)
