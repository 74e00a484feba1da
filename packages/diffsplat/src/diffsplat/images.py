"""Images as conditions: the subject cut out, centered, over white, at the network's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InputError

BORDER = 0.2
"""Share of the side that stays free around a centered subject, both sides together."""

BACKGROUND_DISTANCE = 0.08
"""A pixel belongs to the subject if a color channel differs by more than this from the image's border, in [0, 1]."""


def opened_image(path: Path | str) -> Image.Image:
    """An image file, as RGB or RGBA."""
    try:
        with Image.open(path) as image:
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            return image.convert("RGBA" if has_alpha else "RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error


def without_background(image: Image.Image, *, name: str = "the image") -> Image.Image:
    """The image with what looks like its border made transparent: for subjects before an even background.

    Raises:
        InputError: Nothing differs from the border, or almost everything does.
    """
    rgb = np.asarray(image.convert("RGB"), np.float32) / 255
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    subject = np.abs(rgb - np.median(border, axis=0)).max(axis=-1) > BACKGROUND_DISTANCE
    fraction = float(subject.mean())
    if not 0.002 < fraction < 0.95:
        raise InputError(
            f"{name} shows no subject before an even background ({100 * fraction:.0f} % differs from the border): "
            "give an image with an alpha channel"
        )
    return Image.fromarray(np.dstack([np.asarray(image.convert("RGB")), (255 * subject).astype(np.uint8)]), "RGBA")


def centered(image: Image.Image, border: float = BORDER, *, name: str = "the image") -> Image.Image:
    """The opaque part of an RGBA image in the middle of a square with a free border.

    Raises:
        InputError: Nothing is opaque.
    """
    opaque = np.asarray(image.getchannel("A")) > 12
    box = Image.fromarray((255 * opaque).astype(np.uint8)).getbbox()
    if box is None:
        raise InputError(f"{name} is transparent everywhere: it shows no subject")
    subject = image.crop(box)
    side = round(max(subject.size) / (1 - border))
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(subject, ((side - subject.width) // 2, (side - subject.height) // 2))
    return square


def over_white(image: Image.Image) -> Image.Image:
    """An image without transparency: over white."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def as_condition(
    image: Image.Image, size: int, *, remove_background: bool = False, name: str = "the image"
) -> Float[Tensor, "1 3 s s"]:
    """What the pipeline takes of an image: square, over white, in [0, 1].

    With `remove_background` the subject is found by its alpha channel or else by the border's color, and centered.

    Raises:
        InputError: It has no subject, or is not square and nothing is to be cut out.
    """
    if remove_background:
        if image.mode != "RGBA":
            image = without_background(image, name=name)
        image = centered(image, name=name)
    if image.width != image.height:
        raise InputError(
            f"{name} is {image.width}x{image.height} and must be square: crop it, or let the background be removed"
        )
    pixels = torch.from_numpy(np.array(over_white(image))).permute(2, 0, 1)[None].float() / 255
    if float((1 - pixels).max()) < 0.02:
        raise InputError(f"{name} is white everywhere: it shows no subject")
    return functional.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def as_control(image: Image.Image, size: int, *, name: str = "the control image") -> Float[Tensor, "1 3 s s"]:
    """A control map, in [0, 1].

    Raises:
        InputError: It is not of the network's size, which a map must be: resizing would blur its values.
    """
    if image.size != (size, size):
        raise InputError(
            f"{name} is {image.width}x{image.height}: a control map must be {size}x{size} pixels, white where "
            "there is nothing"
        )
    return torch.from_numpy(np.array(over_white(image))).permute(2, 0, 1)[None].float() / 255
