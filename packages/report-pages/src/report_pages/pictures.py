"""Pictures for people: side by side, above each other, labeled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GAP_PX = 4
"""White between two pictures."""


def beside(pictures_u8: Sequence[UInt8[np.ndarray, "_h _w 3"]], *, scaled: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures side by side on white.

    Args:
        pictures_u8: From left to right.
        scaled: Scale them to the height of the first; otherwise they keep their sizes and stand at the top.
    """
    if scaled:
        height = pictures_u8[0].shape[0]
        pictures_u8 = [_of_height(each, height) for each in pictures_u8]
    return _joined(pictures_u8, axis=1)


def stacked(pictures_u8: Sequence[UInt8[np.ndarray, "_h _w 3"]], gap_px: int = GAP_PX) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures above each other on white, in their sizes, at the left."""
    return _joined(pictures_u8, axis=0, gap_px=gap_px)


def _joined(pictures_u8: Sequence[np.ndarray], axis: int, gap_px: int = GAP_PX) -> np.ndarray:
    most = max(each.shape[1 - axis] for each in pictures_u8)
    parts = []
    for number, each in enumerate(pictures_u8):
        pads = [(0, 0), (0, 0), (0, 0)]
        pads[axis] = (gap_px if number else 0, 0)
        pads[1 - axis] = (0, most - each.shape[1 - axis])
        parts.append(np.pad(each, pads, constant_values=255))
    return np.concatenate(parts, axis=axis)


def shrunk(picture_u8: UInt8[np.ndarray, "h w 3"], max_px: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A picture with a longer side of at most so many pixels; a smaller one as it is."""
    scale = max_px / max(picture_u8.shape[:2])
    if scale >= 1:
        return picture_u8
    height, width = (max(1, round(side * scale)) for side in picture_u8.shape[:2])
    return _resized(picture_u8, width, height)


def _of_height(picture_u8: np.ndarray, height: int) -> np.ndarray:
    if picture_u8.shape[0] == height:
        return picture_u8
    return _resized(picture_u8, max(1, round(picture_u8.shape[1] * height / picture_u8.shape[0])), height)


def _resized(picture_u8: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture_u8).resize((width, height), Image.Resampling.LANCZOS))


def labeled(picture_u8: UInt8[np.ndarray, "h w 3"], label: str) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with its name in the lower left corner, in one line."""
    picture = Image.fromarray(picture_u8)
    corner = (6, picture.height - 6)
    ImageDraw.Draw(picture).text(
        corner, _one_line(label), fill="white", anchor="lb", stroke_width=2, stroke_fill="black"
    )
    return np.array(picture)


def headline(text: str, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A strip of white with a line of text, cut off where it does not fit."""
    picture = Image.new("RGB", (width, 22), "white")
    ImageDraw.Draw(picture).text((4, 11), _one_line(text), fill="#1c2530", anchor="lm", font=ImageFont.load_default(13))
    return np.array(picture)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "_" for character in text)


def spread(count: int, most: int) -> list[int]:
    """At most so many indices of `count` things, evenly spread from the first to the last."""
    return sorted({round(float(index)) for index in np.linspace(0, count - 1, min(count, most))})
