"""One picture of two halves, with a labeled seam."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from splat_render.cameras import Camera

SEAM_PX = 4
"""White between the halves."""

BAR_FRACTION = 1 / 24
"""Height of the bar below the halves, as a part of the page's height."""

MIN_BAR_PX = 14
"""It can be read from this height on."""


def bar_height(height: int) -> int:
    """Rows of the bar in a page of this height."""
    return max(MIN_BAR_PX, round(height * BAR_FRACTION))


def half_camera(page: Camera) -> Camera:
    """The camera of each half: it stands where the page's does and sees things as large, and less on every side."""
    width = max(1, (page.width - SEAM_PX) // 2)
    height = max(1, page.height - bar_height(page.height))
    K = page.K.copy()
    K[:2, 2] = width / 2, height / 2
    return replace(page, K=K, width=width, height=height)


def side_by_side(
    left: UInt8[np.ndarray, "h w 3"], right: UInt8[np.ndarray, "h w 3"], labels: tuple[str, str], bar_px: int
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Two pictures as they are, a seam between them, and below a bar that names them on either side of the seam."""
    height, width = left.shape[:2]
    seam = np.full((height, SEAM_PX, 3), 255, np.uint8)
    bar = Image.new("RGB", (2 * width + SEAM_PX, bar_px), "#1c2530")
    draw = ImageDraw.Draw(bar)
    font = ImageFont.load_default(max(9, round(0.62 * bar_px)))
    draw.rectangle((width, 0, width + SEAM_PX - 1, bar_px), fill="white")
    for label, x, anchor in zip(labels, (width - 6, width + SEAM_PX + 6), ("rm", "lm"), strict=True):
        draw.text((x, bar_px / 2), label, fill="white", anchor=anchor, font=font)
    return np.concatenate([np.concatenate([left, seam, right], axis=1), np.array(bar)], axis=0)
