"""Masks and opacities as the gate needs them, and the record of how much of a fix was let through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from difix_model.errors import InputError
from difix_model.gate.verdict import FixVerdict
from difix_model.images import AnyImage, given_image
from media_files.masks import mask_plane

SHAPE_TOLERANCE = 0.02
"""How far a plane's ratio of width to height may be from its image's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedImage:
    """A fixed image, and how much of the fix is in it."""

    image: AnyImage
    """Of the kind and size of the image that was given."""

    weight: Float[np.ndarray, "h w"] | None
    """The fraction of the fix that was let through, by pixel, in [0, 1]: 0 is the render, 1 the fix. None where it was
    not asked for."""

    verdict: FixVerdict
    """What became of the fix as a whole, and why."""


def plane(given: Any, height: int, width: int, what: str) -> Float[Tensor, "h w"]:
    """Turn a mask or an opacity into values in [0, 1] of an image's size.

    Args:
        given: PIL image, array or tensor: bool, uint8, uint16 or float in [0, 1]. Images are read as
            `media_files.masks` says, colors of arrays count by their mean; a plane of another size, but of the same
            shape, is resized.

    Raises:
        InputError: If it is of another kind, range or shape.
    """
    if isinstance(given, Image.Image):
        given = mask_plane(given)
    elif isinstance(given, np.ndarray) and given.dtype == bool:
        given = given.astype(np.uint8) * 255
    elif isinstance(given, Tensor) and given.dtype == torch.bool:
        given = given.to(torch.uint8) * 255
    try:
        taken = given_image(given)
    except InputError as error:
        raise InputError(f"the {what} cannot be used: {error}") from error
    values = taken.rgb("cpu").mean(dim=-1)
    if abs(width * values.shape[0] / (height * values.shape[1]) - 1) > SHAPE_TOLERANCE:
        raise InputError(f"a {what} of {values.shape[1]}x{values.shape[0]} does not fit an image of {width}x{height}")
    if values.shape == (height, width):
        return values
    resized = functional.interpolate(values[None, None], size=(height, width), mode="bilinear", antialias=True)
    return rearrange(resized, "1 1 h w -> h w").clamp(0.0, 1.0)


def one_per_image(given: Any, count: int, what: str) -> list[Any]:
    """Take one for all images, or a list with one per image, each of which may be None."""
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise InputError(f"there must be one {what} per image: got {count} images, {len(given)}")
    return list(given)


def planes(given: Sequence[Any], sizes: Sequence[tuple[int, int]], what: str) -> list[Float[Tensor, "h w"] | None]:
    """Turn what was given for every image into values of its size; None stays None."""
    return [
        None if own is None else plane(own, height, width, what)
        for own, (height, width) in zip(given, sizes, strict=True)
    ]
