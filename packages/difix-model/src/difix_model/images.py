"""Images: the only place for value range, axis layout, resizing, padding and cropping back.

Outside the network an image is RGB, height x width x 3, as floats in [0, 1]; inside, 3 x height x width in [-1, 1].

What happens to images that are not plain 8-bit RGB: grayscale and palette images become RGB; an alpha channel is kept
as it is while the colours are fixed; 16-bit images are reduced to 8 bits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from difix_model.errors import InputError

RANGE_TOLERANCE = 0.01
"""How far beyond [0, 1] a float image may reach, for example by resampling, before it counts as another range."""

MIN_SIDE = 8
"""Images with a shorter side are refused: there is nothing to fix in them."""

AnyImage = Any
"""A PIL image, or an HWC array or tensor of 3 or 4 channels, uint8 or float in [0, 1]."""

Restore = Callable[[Tensor], AnyImage]
"""Turns a fixed RGB tensor into an image of the kind that the user gave."""


def to_rgb(image: AnyImage) -> tuple[Float[Tensor, "h w c=3"], Restore]:
    """Turn an image of any accepted kind into RGB in [0, 1].

    Args:
        image: PIL image, numpy array or tensor.

    Returns:
        The RGB tensor on the CPU, and a function that turns such a tensor into the same kind of image again: type,
        value range and alpha channel.

    Raises:
        InputError: If it is of another kind, shape, type or range.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, np.ndarray):
        pixels, alpha = _split_alpha(_checked(torch.from_numpy(np.ascontiguousarray(image))))

        def restore(rgb: Tensor) -> AnyImage:
            return _like(rgb, pixels, alpha).numpy().astype(image.dtype, copy=False)

        return _as_unit(pixels), restore
    if isinstance(image, Tensor):
        pixels, alpha = _split_alpha(_checked(image))
        return _as_unit(pixels).cpu(), lambda rgb: _like(rgb.to(image.device), pixels, alpha)
    raise InputError(f"an image must be a PIL image, a numpy array or a tensor, got {type(image).__name__}")


def to_network(rgb: Float[Tensor, "*b h w c=3"]) -> Float[Tensor, "*b c=3 h w"]:
    """Go from RGB in [0, 1] to the network's layout and range; values beyond are clamped."""
    return rearrange(rgb.clamp(0.0, 1.0), "... h w c -> ... c h w") * 2.0 - 1.0


def from_network(x: Float[Tensor, "*b c=3 h w"]) -> Float[Tensor, "*b h w c=3"]:
    """Go from the network's layout and range to RGB in [0, 1]."""
    return rearrange((x * 0.5 + 0.5).clamp(0.0, 1.0), "... c h w -> ... h w c")


def to_bytes(rgb: Float[Tensor, "*shape"]) -> Tensor:
    """Round values in [0, 1] to bytes."""
    return (rgb.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def resized(rgb: Float[Tensor, "b h w c=3"], height: int, width: int) -> Float[Tensor, "b h2 w2 c=3"]:
    """Resize with antialiasing; an image of that size is returned as it is."""
    if rgb.shape[-3:-1] == (height, width):
        return rgb
    x = rearrange(rgb, "b h w c -> b c h w")
    x = functional.interpolate(x, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    return rearrange(x, "b c h w -> b h w c").clamp(0.0, 1.0)


def padded(x: Float[Tensor, "n c h w"], multiple: int) -> Float[Tensor, "n c h2 w2"]:
    """Repeat the last row and column until both sides are multiples; `cropped` undoes it."""
    right, below = -x.shape[-1] % multiple, -x.shape[-2] % multiple
    return functional.pad(x, (0, right, 0, below), mode="replicate") if right or below else x


def cropped(x: Float[Tensor, "*b c h w"], height: int, width: int) -> Float[Tensor, "*b c h2 w2"]:
    """Keep the top left part of the given size."""
    return x[..., :height, :width]


def _from_pil(image: Image.Image) -> tuple[Tensor, Restore]:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    has_alpha = image.has_transparency_data
    pixels = np.array(image.convert("RGBA" if has_alpha else "RGB"))
    _check_side(pixels.shape[0], pixels.shape[1])
    alpha = pixels[..., 3:]

    def restore(rgb: Tensor) -> Image.Image:
        fixed = to_bytes(rgb).numpy()
        return Image.fromarray(np.concatenate([fixed, alpha], axis=-1) if has_alpha else fixed)

    return torch.from_numpy(pixels[..., :3]).float() / 255.0, restore


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.array(image, dtype=np.float64)
    if image.mode == "F":
        raise InputError("a float image file has no known range: save it as 8-bit or 16-bit")
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"a grayscale image must be 8-bit or 16-bit, got values up to {values.max():.0f}")
    return Image.fromarray(np.round(values / 257.0).astype(np.uint8))


def _checked(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[-1] not in (3, 4):
        raise InputError(f"an image must be height x width x 3 or 4 channels, got the shape {tuple(image.shape)}")
    _check_side(image.shape[0], image.shape[1])
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise InputError(f"an image must be uint8 or float in [0, 1], got {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if not (low >= -RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE):
        raise InputError(f"a float image must be in [0, 1], got [{low:.3g}, {high:.3g}]: divide by 255 or clamp")
    return image


def _check_side(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise InputError(f"an image must be at least {MIN_SIDE}x{MIN_SIDE} pixels, got {width}x{height}")


def _split_alpha(image: Tensor) -> tuple[Tensor, Tensor]:
    return image[..., :3], image[..., 3:]


def _as_unit(pixels: Tensor) -> Tensor:
    return pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels.float().clamp(0.0, 1.0)


def _like(rgb: Tensor, pixels: Tensor, alpha: Tensor) -> Tensor:
    fixed = to_bytes(rgb) if pixels.dtype == torch.uint8 else rgb.to(pixels.dtype)
    return torch.cat([fixed, alpha], dim=-1) if alpha.shape[-1] else fixed
