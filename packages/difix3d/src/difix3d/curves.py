"""How close both trainings were to the held-out photos as they went on."""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLORS = {"plain": "#8a94a6", "loop": "#0b7a75"}
"""One colour per training, the same everywhere in the report."""

NAMES = {"plain": "plain training", "loop": "progressive loop"}


class Curves:
    """Measurements in the order of their steps."""

    def __init__(self) -> None:
        self.measurements: list[dict[str, Any]] = []

    def add(self, values: dict[str, Any]) -> None:
        """Add one measurement: step, variant, psnr, ssim and more."""
        self.measurements.append(values)

    def latest(self, variant: str) -> dict[str, Any] | None:
        """The last measurement of a training, if there is one."""
        return next((values for values in reversed(self.measurements) if values["variant"] == variant), None)

    def svg(self, round_steps: tuple[int, ...]) -> str:
        """PSNR and SSIM over the steps as an SVG element; dotted lines mark the rounds."""
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(9.2, 3.0), layout="constrained")
            for axes, (key, title) in zip(
                figure.subplots(1, 2),
                (("psnr", "PSNR of held-out views (dB)"), ("ssim", "SSIM of held-out views")),
                strict=True,
            ):
                for step in round_steps:
                    axes.axvline(step, color="#d5dae3", linestyle=":", linewidth=1, zorder=0)
                for variant, name in NAMES.items():
                    points = self._points(variant, key)
                    if points:
                        axes.plot(*zip(*points, strict=True), color=COLORS[variant], label=name, marker="o")
                axes.set_title(title, loc="left")
                axes.set_xlabel("step")
                axes.grid(axis="y", color="#eceff4")
                axes.spines[["top", "right"]].set_visible(False)
            if self.measurements:
                figure.axes[0].legend(frameon=False, loc="lower right")
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
        text = buffer.getvalue()
        return text[text.index("<svg") :]

    def _points(self, variant: str, key: str) -> list[tuple[int, float]]:
        points = [(values["step"], values[key]) for values in self.measurements if values["variant"] == variant]
        if variant == "loop" and points:
            # Before the loop had a life of its own it was the plain training: its curve begins there.
            shared = [p for p in self._points("plain", key) if p[0] < points[0][0]]
            points = shared[-1:] + points
        return points


_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "difix3d",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": "#b6bfcc",
    "lines.markersize": 3.5,
    "lines.linewidth": 1.8,
}
