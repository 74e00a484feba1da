"""Settings of what training may learn about each photo besides the splat; imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Literal

from output_files import check_range

check_finite = partial(check_range, finite=True)
"""Numbers of splats' trainings are finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseConfig:
    """A correction of each training photo's pose: three angles and a shift, learned with the splat."""

    rotation_rate: float = 1e-3
    """Adam's learning rate of the angles, radians per step that uses the photo. gsplat's single rate of 1e-5 suits
    photos that are drawn tens of thousands of times."""

    translation_rate: float = 1e-3
    """The same for the shift, as a fraction of the scene's extent."""

    rate_final_ratio: float = 0.01
    """Both rates at the end of training, relative to the start; the decay is exponential. gsplat: 0.01."""

    start: int = 500
    """First step that moves poses: before it there is no shape that a pose could be wrong against."""

    def __post_init__(self) -> None:
        check_finite(self, "zero or more", "rotation_rate", "translation_rate", "start")
        check_range(self, "in (0, 1]", "rate_final_ratio")

    def scaled(self, factor: float) -> PoseConfig:
        """The same schedule in `factor` times as many steps."""
        return dataclasses.replace(self, start=round(self.start * factor))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposureConfig:
    """An affine map of RGB per training photo, for photos of differing exposure and white balance."""

    kind: Literal["exposure"] = "exposure"
    """Name of the model in a saved config."""

    rate: float = 0.01
    """Adam's learning rate of the twelve numbers, per step that uses the photo. Released 3DGS code: 0.01."""

    rate_final_ratio: float = 0.1
    """The rate at the end of training, relative to the start. Released 3DGS code: 0.1."""

    def __post_init__(self) -> None:
        check_finite(self, "zero or more", "rate")
        check_range(self, "in (0, 1]", "rate_final_ratio")


@dataclass(frozen=True, kw_only=True, slots=True)
class BilateralGridConfig:
    """A grid of affine maps of RGB per training photo (arXiv:2406.00448).

    Also for what differs across the image or with brightness: vignetting, a camera's tone mapping.
    """

    kind: Literal["bilateral"] = "bilateral"
    """Name of the model in a saved config."""

    width: int = 16
    """Cells across the image."""

    height: int = 16
    """Cells down the image."""

    levels: int = 8
    """Cells from dark to bright."""

    rate: float = 2e-3
    """Adam's learning rate of the maps, per step that uses the photo. gsplat: 2e-3."""

    rate_final_ratio: float = 0.01
    """The rate at the end of training, relative to the start. gsplat: 0.01."""

    smoothness: float = 10.0
    """Weight of the total variation (mean squared difference of neighboring cells) in the loss. gsplat: 10."""

    def __post_init__(self) -> None:
        check_finite(self, "zero or more", "rate", "smoothness")
        check_range(self, "in (0, 1]", "rate_final_ratio")
        check_range(self, "at least 2", "width", "height", "levels")


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthConfig:
    """Depths of structure-from-motion points as a second teacher."""

    weight: float = 1e-2
    """Weight in the loss of the mean absolute difference of disparities (1 / depth, times the extent). gsplat: 1e-2."""

    def __post_init__(self) -> None:
        check_finite(self, "zero or more", "weight")
