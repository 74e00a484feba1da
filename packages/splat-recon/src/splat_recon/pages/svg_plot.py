"""Line plots as SVG text, for pages that need nothing else."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 380.0, 240.0
"""Size of a plot in SVG units."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 34.0, 40.0

NUM_TICKS = 5
"""About how many ticks an axis has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a plot."""

    name: str
    """In the legend; empty for none."""

    color: str
    """As CSS has it."""

    points: Sequence[tuple[float, float]]
    """Places (x, y) from left to right; ones that are not finite are left out."""


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
    """Places on the x axis with a dotted vertical line."""

    markers: bool = True
    """Whether each point has a dot."""


def svg(plots: Sequence[Plot]) -> str:
    """Plots side by side as one SVG element, whose text stays text."""
    width = WIDTH * max(1, len(plots))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {HEIGHT:g}" '
        'font-family="DejaVu Sans, system-ui, sans-serif" font-size="11" fill="#1c2530">'
    ]
    for index, plot in enumerate(plots):
        parts.append(f'<g transform="translate({index * WIDTH:g} 0)">{_plot(plot)}</g>')
    return "".join([*parts, "</svg>"])


def _plot(plot: Plot) -> str:
    lines = [(line, [p for p in line.points if math.isfinite(p[0]) and math.isfinite(p[1])]) for line in plot.lines]
    xs = [x for _, points in lines for x, _ in points] + list(plot.marks)
    ys = [y for _, points in lines for _, y in points]
    parts = [f'<text x="{_LEFT:g}" y="18" font-size="12.5" font-weight="600">{html.escape(plot.title)}</text>']
    if not xs or not ys:
        return "".join([*parts, f'<text x="{_LEFT:g}" y="{HEIGHT / 2:g}" fill="#5d6b7e">no measurements</text>'])
    x_axis, y_axis = _Axis(xs, _LEFT, WIDTH - _RIGHT), _Axis(ys, HEIGHT - _BOTTOM, _TOP)
    parts += _ticks(x_axis, y_axis, plot.x_label)
    for mark in plot.marks:
        x = x_axis.place(mark)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:g}" y2="{HEIGHT - _BOTTOM:g}" stroke="#b6bfcc" '
            'stroke-dasharray="2 3"/>'
        )
    for line, points in lines:
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="1.8" stroke-linejoin="round"/>'
        )
        if plot.markers or len(places) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{line.color}"/>' for x, y in places]
    named = [line for line, points in lines if line.name and points]
    for row, line in enumerate(named):
        y = HEIGHT - _BOTTOM - 10 - 16 * (len(named) - 1 - row)
        parts.append(
            f'<line x1="{WIDTH - 150:g}" x2="{WIDTH - 130:g}" y1="{y - 4:g}" y2="{y - 4:g}" stroke="{line.color}" '
            f'stroke-width="2"/><text x="{WIDTH - 124:g}" y="{y:g}">{html.escape(line.name)}</text>'
        )
    return "".join(parts)


def _ticks(x_axis: "_Axis", y_axis: "_Axis", x_label: str) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [f'<line x1="{_LEFT:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}" stroke="#b6bfcc"/>']
    for value in y_axis.ticks:
        y = y_axis.place(value)
        parts.append(f'<line x1="{_LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e8ef"/>')
        parts.append(f'<text x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end" fill="#5d6b7e">{value:,.6g}</text>')
    for value in x_axis.ticks:
        x = x_axis.place(value)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:g}" text-anchor="middle" fill="#5d6b7e">{value:,.6g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle:g}" y="{HEIGHT - 6:g}" text-anchor="middle" fill="#5d6b7e">{html.escape(x_label)}</text>'
    )
    return parts


class _Axis:
    """From values to places, with round ticks."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        if high <= low:
            low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
        self._low, self._high = low, high
        self._start, self._end = start, end
        rough = (high - low) / NUM_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(low / step - 1e-9)
        self.ticks = [
            round(first * step + index * step, 12) for index in range(int((high - first * step) / step + 1.001))
        ]

    def place(self, value: float) -> float:
        """Where a value stands, in SVG units."""
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)
