"""How close both trainings were to the test photos as they went on."""

from typing import Any

from markupsafe import Markup

from report_pages import Line, Plot, svg

COLORS = {"plain": "#8a94a6", "loop": "#0b7a75"}
"""One color per training, the same everywhere in the report."""

NAMES = {"plain": "plain training", "loop": "loop"}


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

    def svg(self, round_steps: tuple[int, ...], side: str = "test") -> Markup:
        """PSNR and SSIM over the steps as an SVG element; dotted lines mark the rounds."""
        plots = []
        for key, title in (("psnr", f"PSNR of {side} views (dB)"), ("ssim", f"SSIM of {side} views")):
            lines = [
                Line(name=name, color=COLORS[variant], points=self._points(variant, key))
                for variant, name in NAMES.items()
            ]
            plots.append(Plot(title=title, lines=lines, marks=round_steps))
        return svg(plots)

    def _points(self, variant: str, key: str) -> list[tuple[int, float]]:
        points = [(values["step"], values[key]) for values in self.measurements if values["variant"] == variant]
        if variant == "loop" and points:
            # Before the loop had a life of its own it was the plain training: its curve begins there.
            shared = [p for p in self._points("plain", key) if p[0] < points[0][0]]
            points = shared[-1:] + points
        return points
