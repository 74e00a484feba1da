"""Errors and depths as colors."""

import numpy as np
from jaxtyping import Float, UInt8

_ERROR_COLORS = np.array([[8, 8, 20], [70, 18, 110], [180, 40, 100], [245, 120, 45], [255, 235, 150]], dtype=np.float64)
"""From no error, dark, to the largest, bright."""

_DEPTH_COLORS = np.array(
    [[255, 246, 180], [255, 190, 90], [232, 95, 75], [160, 45, 120], [75, 30, 130], [18, 14, 60]], dtype=np.float64
)
"""From near, bright, to far, dark."""


def error_map(
    rendered_u8: UInt8[np.ndarray, "h w 3"], photo_u8: UInt8[np.ndarray, "h w 3"], most: float = 64.0
) -> UInt8[np.ndarray, "h w 3"]:
    """How far a render is from its photo: the mean difference of the three channels, `most` of 255 and more bright."""
    difference = np.abs(rendered_u8.astype(np.float64) - photo_u8).mean(axis=2)
    return _colored(difference / most, _ERROR_COLORS)


def depth_colors(
    depth: Float[np.ndarray, "h w"], alpha: Float[np.ndarray, "h w"], near: float, far: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Depths as colors, evenly in 1 / depth, from `near` (bright) to `far` (dark); black where nothing is.

    Args:
        depth: Expected z-depth; not looked at where alpha is 0.
        alpha: Opacity in [0, 1], by which the colors fade to black.
        near: Depth of the brightest color, positive.
        far: Depth of the darkest, beyond `near`.

    Raises:
        ValueError: Not 0 < near < far.
    """
    if not 0 < near < far:
        raise ValueError(f"expected 0 < near < far, got {near} and {far}")
    inverse = 1 / np.maximum(depth, near * 1e-3)
    t = (1 / near - inverse) / (1 / near - 1 / far)
    return (_colored(t, _DEPTH_COLORS) * np.clip(alpha, 0, 1)[..., None]).astype(np.uint8)


def _colored(t: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (others are clamped) as colors between the given ones."""
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(t, stops, channel) for channel in colors.T], axis=-1).round().astype(np.uint8)
