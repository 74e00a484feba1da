"""What a camera sees of an object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int8


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ObjectMaps:
    """Maps of one view, float32, all of one size; off the object they hold 0, `rgb` the background."""

    rgb: Float32[np.ndarray, "h w c=3"]
    """sRGB in [0, 1]; the object over the background."""
    mask: Float32[np.ndarray, "h w"]
    """The share of the pixel that the object covers, in [0, 1]."""
    depth: Float32[np.ndarray, "h w"]
    """z-depth in world units, the mean over the covered part of the pixel."""
    normal: Float32[np.ndarray, "h w c=3"]
    """Unit outward normal in the world's axes."""
    points: Float32[np.ndarray, "h w c=3"]
    """Coordinates of the surface in the world, the mean over the covered part of the pixel."""
    part: Int8[np.ndarray, "h w"]
    """Which part covers most of the pixel: 0, 1, or -1 where there is none."""

    @property
    def normal_rgb(self) -> Float32[np.ndarray, "h w c=3"]:
        """The normals as colors in [0, 1], over white."""
        return _over_white(self.normal / 2 + 0.5, self.mask)

    @property
    def coord_rgb(self) -> Float32[np.ndarray, "h w c=3"]:
        """The coordinates of the cube [-1, 1] as colors in [0, 1], over white."""
        return _over_white(self.points / 2 + 0.5, self.mask)


def _over_white(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (values * mask[..., None] + (1 - mask[..., None])).astype(np.float32)
