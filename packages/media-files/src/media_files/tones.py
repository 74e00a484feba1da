"""Tones: from the numbers that an image file holds to 8-bit RGB, where the file says what its numbers stand for.

- 8 bits: 255 is white. Palettes, CMYK, YCbCr and Lab become RGB, grayscale is repeated; color profiles are left alone.
- 16 bits, and 32-bit integers that fit 16: 65535 is white.
- 32-bit unsigned integers that use their upper 8 bits: 4294967295 is white.
- floats in [0, 1]: 1 is white.

Other numbers (floats up to 255, signed integers beyond 16 bits, values that are not finite) have no known range and
are refused in a sentence, never clipped to white or shrunk to black.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageCms

from media_files.errors import InputError

FLOAT_TOLERANCE = 0.01
"""How far beyond [0, 1] floats may reach, for example by resampling, before they count as another range."""

WHITE_16, WHITE_32 = 65535, 2**32 - 1

USES_32_BITS = 2**24
"""Unsigned integers of 32 bits use their range where the largest reaches this."""

BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339
"""Tags of TIFF files; the format is 1 for unsigned and 2 for signed integers, 3 for floats."""


def is_deep(image: Image.Image) -> bool:
    """Whether an image is grayscale with more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def as_unsigned(image: Image.Image) -> Image.Image:
    """Unsigned 32-bit integers of a TIFF file, which Pillow takes for signed, as floats in [0, 1] where they need it.

    Must be called on the opened file, as copies do not know its tags.
    """
    tags = getattr(image, "tag_v2", None)
    if image.mode != "I" or tags is None or tags.get(BITS_PER_SAMPLE, (0,))[0] != 32:
        return image
    if tags.get(SAMPLE_FORMAT, (1,))[0] != 1:
        return image
    values = np.asarray(image).view(np.uint32)
    if values.max() < USES_32_BITS:
        return image
    return Image.fromarray((values / WHITE_32).astype(np.float32))


def deep_gray(image: Image.Image) -> Float[np.ndarray, "h w"]:
    """A deep image's tones in [0, 1], as float64.

    Raises:
        InputError: Nothing says what its numbers stand for; the sentence is about "it" and does not name the file.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(values).all():
        raise InputError("it holds values that are not finite: save it as 8-bit or 16-bit")
    if image.mode == "F":
        if low < -FLOAT_TOLERANCE or high > 1 + FLOAT_TOLERANCE:
            raise InputError(
                f"it holds floats from {low:.6g} to {high:.6g}, and floats are tones in [0, 1] only: "
                "scale them, or save it as 8-bit or 16-bit"
            )
        return values.clip(0, 1).astype(np.float64)
    if low < 0 or high > WHITE_16:
        raise InputError(
            f"it holds integers from {low:.0f} to {high:.0f}, which fill neither 16 nor 32 bits: "
            "save it as 8-bit or 16-bit"
        )
    return values / float(WHITE_16)


def to_rgb_u8(image: Image.Image) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
    """Tones of any kind as 8-bit RGB, and where an alpha channel is not opaque, what is valid (a half)."""
    if is_deep(image):
        gray = deep_gray(image)
        return np.repeat((gray * 255).round().astype(np.uint8)[..., None], 3, axis=2), None
    if has_alpha(image):
        rgba = np.array(image.convert("RGBA"))
        mask = rgba[..., 3] >= 128
        return np.ascontiguousarray(rgba[..., :3]), None if mask.all() else mask
    return np.array(to_rgb(image)), None


def has_alpha(image: Image.Image) -> bool:
    """Whether an image has an alpha channel or a transparent color."""
    return bool({"A", "a"} & set(image.getbands())) or "transparency" in image.info


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit image of any mode as RGB."""
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))  # type: ignore[return-value]
    return image.convert("RGB")
