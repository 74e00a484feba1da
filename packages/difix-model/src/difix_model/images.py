"""Images: the only place for kinds of pixels, value range, axis layout, resizing, padding and cropping back.

Outside the network an image is RGB, height x width x 3, as floats in [0, 1]; inside, 3 x height x width in [-1, 1].

What happens to images that are not plain 8-bit RGB, which come back as what they were:

- grayscale is repeated over the three channels, and the luma (BT.601, as in PIL) of the result is returned;
- 16-bit values are fixed and returned with 16 bits. PIL itself reads 16-bit *color* files as 8-bit ones, so for those
  16 bits need an array. Float grayscale in [0, 1] comes back as such;
- an alpha channel is returned as it is. The network sees the stored colors, whatever the alpha; pixels whose alpha is
  0 get their stored colors back, since what cannot be seen needs no fixing;
- palette images become RGB, bilevel ones grayscale, CMYK and others RGB; 32-bit grayscale (mode I) whose values fit
  16 bits becomes 16-bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor
from torch.nn import functional

from difix_model.errors import InputError

RANGE_TOLERANCE = 0.01
"""How far beyond [0, 1] a float image may reach, for example by resampling, before it counts as another range."""

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a gray value (ITU-R BT.601), as PIL converts to grayscale."""

FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
"""The integer types that pixels may have, and what 1 is in them."""

ROWS_AT_ONCE = 512
"""Rows of a large image that are computed on at a time, where all would be held in memory once more."""

AnyImage = Any
"""A PIL image, or an array or tensor, uint8, uint16 or float in [0, 1]: height x width, or height x width x channels
with 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 channels (RGB, alpha)."""

Restore = Callable[[Tensor], AnyImage]
"""Turns a fixed RGB tensor into an image of the kind that the user gave."""


@dataclass(frozen=True, eq=False)
class GivenImage:
    """The pixels that the user gave, as they were given, and the way back to the same kind of image."""

    pixels: Shaped[Tensor, "h w c"]
    """uint8, uint16 or float; gray, gray and alpha, RGB, or RGB and alpha."""

    rebuild: Callable[[Tensor], AnyImage]
    """Turns pixels of the same type and channels, on the CPU, into the kind of image that was given."""

    @property
    def height(self) -> int:
        """Rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.pixels.shape[1]

    def rgb(self, device: str | torch.device | None = None) -> Float[Tensor, "h w c=3"]:
        """Return the colors in [0, 1] on a device; None leaves them where they are."""
        return colors(self.pixels if device is None else on_device(self.pixels, torch.device(device)))

    def opacity(self) -> Float[Tensor, "h w"] | None:
        """Return the alpha channel in [0, 1]; None without one."""
        if self.pixels.shape[-1] not in (2, 4):
            return None
        alpha = self.pixels[..., -1]
        return alpha.float() / FULL_SCALE[alpha.dtype] if alpha.dtype in FULL_SCALE else alpha.float().clamp(0.0, 1.0)

    def restore(self, rgb: Float[Tensor, "h w c=3"]) -> AnyImage:
        """Return an image of the kind that was given with other colors."""
        num_colors = 1 if self.pixels.shape[-1] < 3 else 3
        if num_colors == 1:
            rgb = rgb @ rgb.new_tensor(LUMA)[:, None]
        fixed = quantized(rgb, self.pixels.dtype).cpu()
        given, alpha = self.pixels[..., :num_colors].cpu(), self.pixels[..., num_colors:].cpu()
        if alpha.shape[-1]:
            kept = alpha.float() == 0
            if kept.any():
                fixed = torch.where(kept, given, fixed)
            fixed = torch.cat([fixed, alpha], dim=-1)
        return self.rebuild(fixed)


def given_image(image: AnyImage) -> GivenImage:
    """Take an image of any accepted kind.

    Raises:
        InputError: If it is of another kind, shape, type or range.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, np.ndarray):
        given = np.require(image, requirements=["C", "W"])
        if given.dtype.kind in "uf" and not given.dtype.isnative:
            given = given.astype(given.dtype.newbyteorder("="))
        try:
            pixels = _checked(torch.from_numpy(given))
        except TypeError as error:
            raise InputError(f"an image must be uint8, uint16 or float in [0, 1], got {image.dtype}") from error
        return GivenImage(pixels, lambda fixed: fixed.reshape(image.shape).numpy().astype(image.dtype, copy=False))
    if isinstance(image, Tensor):
        return GivenImage(_checked(image.detach()), lambda fixed: fixed.reshape(image.shape).to(image.device))
    raise InputError(f"an image must be a PIL image, a numpy array or a tensor, got {type(image).__name__}")


def to_rgb(image: AnyImage) -> tuple[Float[Tensor, "h w c=3"], Restore]:
    """Turn an image of any accepted kind into RGB in [0, 1].

    Returns:
        The RGB tensor on the CPU, and a function that turns such a tensor into the same kind of image again: type,
        value range, grayscale and alpha channel.

    Raises:
        InputError: If it is of another kind, shape, type or range.
    """
    given = given_image(image)
    return given.rgb("cpu"), given.restore


def on_device(pixels: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """Pixels on a device; the caller does not wait for what goes from the CPU to CUDA."""
    return pinned(pixels, device).to(device, non_blocking=device.type == "cuda")


def pinned(pixels: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """Pixels in memory that CUDA reads by itself, where they are going there from the CPU; else as they are."""
    if device.type != "cuda" or pixels.device.type != "cpu" or pixels.is_pinned():
        return pixels
    return pixels.contiguous().pin_memory()


def colors(pixels: Shaped[Tensor, "*b h w c"]) -> Float[Tensor, "*b h w c2=3"]:
    """Return the colors of pixels as RGB in [0, 1]; an alpha channel is left out, gray is repeated."""
    num_colors = 1 if pixels.shape[-1] < 3 else 3
    unit = pixels[..., :num_colors].float()
    # float() copies integers, so that they may be scaled in place; floats may be the user's own memory.
    unit = unit.div_(FULL_SCALE[pixels.dtype]) if pixels.dtype in FULL_SCALE else unit.clamp(0.0, 1.0)
    return unit if num_colors == 3 else repeat(unit, "... 1 -> ... c", c=3)


def quantized(unit: Float[Tensor, "*shape"], dtype: torch.dtype) -> Shaped[Tensor, "*shape"]:
    """Round values in [0, 1] to uint8 or uint16; floats keep their values."""
    if dtype not in FULL_SCALE:
        return unit.to(dtype)
    scale = FULL_SCALE[dtype]
    if not unit.ndim:
        return unit.float().mul(scale).round_().clamp_(0.0, scale).to(dtype)
    whole = torch.empty(unit.shape, dtype=dtype, device=unit.device)
    for rows, target in zip(unit.split(ROWS_AT_ONCE), whole.split(ROWS_AT_ONCE), strict=True):
        # A whole large image in float would be held once more.
        target.copy_(rows.float().mul(scale).round_().clamp_(0.0, scale))
    return whole


def to_bytes(rgb: Float[Tensor, "*shape"]) -> Tensor:
    """Round values in [0, 1] to bytes."""
    return quantized(rgb, torch.uint8)


def to_network(rgb: Float[Tensor, "*b h w c=3"]) -> Float[Tensor, "*b c=3 h w"]:
    """Go from RGB in [0, 1] to the network's layout and range; values beyond are clamped."""
    return rearrange(rgb.clamp(0.0, 1.0), "... h w c -> ... c h w") * 2.0 - 1.0


def from_network(x: Float[Tensor, "*b c=3 h w"]) -> Float[Tensor, "*b h w c=3"]:
    """Go from the network's layout and range to RGB in [0, 1]."""
    return rearrange((x * 0.5 + 0.5).clamp(0.0, 1.0), "... c h w -> ... h w c")


def resized(rgb: Float[Tensor, "b h w c=3"], height: int, width: int) -> Float[Tensor, "b h2 w2 c=3"]:
    """Resize with antialiasing to exactly this size; an image of that size is returned as it is."""
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


def _from_pil(image: Image.Image) -> GivenImage:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_gray(image)
    gray = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if gray else "RGBA") if image.has_transparency_data else ("L" if gray else "RGB")
    pixels = np.array(image.convert(mode))
    _check_side(image.height, image.width)

    def rebuild(fixed: Tensor) -> Image.Image:
        return Image.fromarray(fixed.numpy()[..., 0] if mode == "L" else fixed.numpy())

    return GivenImage(torch.from_numpy(pixels.reshape(image.height, image.width, -1)), rebuild)


def _deep_gray(image: Image.Image) -> GivenImage:
    """Take a grayscale image whose values have more than 8 bits."""
    _check_side(image.height, image.width)
    if image.mode == "F":
        pixels = _checked(torch.from_numpy(np.array(image)))
        return GivenImage(pixels, lambda fixed: Image.fromarray(fixed.numpy()[..., 0]))
    values = np.array(image)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"a grayscale image must be 8-bit or 16-bit, got values from {values.min()} to {values.max()}")

    return GivenImage(
        torch.from_numpy(values.astype(np.uint16)[..., None]), lambda fixed: Image.fromarray(fixed.numpy()[..., 0])
    )


def _checked(image: Tensor) -> Tensor:
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4):
        raise InputError(
            f"an image must be height x width, or height x width x 1 to 4 channels, got the shape {tuple(image.shape)}"
        )
    _check_side(pixels.shape[0], pixels.shape[1])
    if pixels.dtype in FULL_SCALE:
        return pixels
    if not pixels.is_floating_point():
        raise InputError(f"an image must be uint8, uint16 or float in [0, 1], got {image.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE):
        raise InputError(f"a float image must be in [0, 1], got [{low:.3g}, {high:.3g}]: divide by 255 or clamp")
    return pixels


def _check_side(height: int, width: int) -> None:
    if min(height, width) < 1:
        raise InputError(f"an image must have pixels, got {width}x{height}")
