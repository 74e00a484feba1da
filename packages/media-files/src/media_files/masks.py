"""Masks as people save them: white on black, an alpha channel, 0 and 1, 8 or 16 bits, floats."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from media_files.errors import InputError
from media_files.photos import open_image
from media_files.tones import has_alpha, is_deep, to_rgb


def mask_plane(image: Image.Image) -> Float[np.ndarray, "h w"]:
    """What a mask image says, in [0, 1]: 1 is valid.

    Where it has an alpha channel that is neither opaque nor empty everywhere, that is the mask, as cut-out tools save
    it; else its brightest color channel. White is the full range of 8 or 16 bits, or 1 where nothing is larger, as
    booleans are saved.
    """
    values = _values(image)
    top = float(values.max(initial=0))
    white = 1 if top <= 1 else 255 if top <= 255 else 65535
    return (values / np.float32(white)).clip(0, 1)


def read_mask(path: Path, *, upright: bool = False) -> Bool[np.ndarray, "h w"]:
    """Read a mask image: a half and more counts as valid.

    Raises:
        InputError: The file is missing or corrupt, or it holds a few small numbers that are neither black nor white.
    """
    try:
        plane = mask_plane(open_image(path, upright=upright))
        mask = plane >= 0.5
    except MemoryError:
        raise InputError(f"{path} takes more memory than there is: make it smaller") from None
    if not mask.any() and plane.any():
        raise InputError(
            f"mask {path} has no white: its largest value is {plane.max() * 255:.0f} of 255; "
            "save what is valid as 255, or as 1 where all else is 0"
        )
    return mask


def _values(image: Image.Image) -> np.ndarray:
    if is_deep(image):
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
        return values.clip(0, None)
    if has_alpha(image):
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min(initial=255) < 255 and alpha.any():
            return alpha.astype(np.float32)
    return np.asarray(to_rgb(image)).max(axis=2).astype(np.float32)
