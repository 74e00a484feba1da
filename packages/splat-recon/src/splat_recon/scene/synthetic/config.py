"""What a generated scene looks like: sizes, number of photos, layout, noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from output_files import check_range

Layout = Literal["any", "table", "room", "garden", "street", "shelf"]
LAYOUTS: tuple[Layout, ...] = ("table", "room", "garden", "street", "shelf")
"""The layouts that "any" draws from."""

DEMO_SEED = 1
"""Seed of the scene that a newcomer's first command shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticConfig:
    """How to generate a scene: ray-cast photos of random solids with procedural textures."""

    layout: Layout = "any"
    """Solids and cameras: table, garden (orbits), room (from inside), street (forward), shelf (frontal)."""
    num_views: int = 24
    """Number of photos, at least 2."""
    width: int = 192
    """Width of a photo in pixels, at least 16."""
    height: int = 144
    """Height of a photo in pixels, at least 16."""
    dark_fraction: float = 0.0
    """Share of surfaces that are nearly black, and probability that the sky is, in [0, 1]."""
    panoramas: Path | None = None
    """Folder of equirectangular photos (twice as wide as high): most textures are cut out of them, and one surrounds
    the scene, as its sky or on the walls of its room. None: everything is drawn."""
    samples_per_axis: int = 2
    """Rays per pixel along each axis (anti-aliasing), in [1, 8]."""
    num_points: int = 2000
    """Number of surface points, as structure from motion would give them, at least 16."""
    point_noise: float = 0.002
    """Standard deviation of a point's error as a share of its distance to the camera, at least 0."""
    outlier_fraction: float = 0.01
    """Share of points that lie anywhere along their ray, in [0, 1]."""
    sensor_noise: float = 0.006
    """Standard deviation of each photo's noise, on the scale [0, 1], at least 0."""
    exposure_spread: float = 0.02
    """Standard deviation of each photo's logarithmic exposure, at least 0."""

    def __post_init__(self) -> None:
        if self.layout != "any" and self.layout not in LAYOUTS:
            raise ValueError(f"layout must be any or one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        check_range(self, "at least 2", "num_views")
        check_range(self, "at least 16", "width", "height", "num_points")
        check_range(self, "in [1, 8]", "samples_per_axis")
        check_range(self, "at least 0", "point_noise", "sensor_noise", "exposure_spread")
        check_range(self, "in [0, 1]", "outlier_fraction", "dark_fraction")
