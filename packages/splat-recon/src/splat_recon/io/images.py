"""Photos and masks as arrays, by the readers of `media_files` and with this library's error."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

import media_files.masks
import media_files.photos
from splat_recon.errors import InputError, as_input_error


@as_input_error()
def read_photo(
    path: Path, *, upright: bool = False
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
    """Decode all of a photo to 8-bit RGB, by the rules of `media_files.tones`.

    Args:
        path: The file.
        upright: Turn the photo as its EXIF orientation says. COLMAP does not, and its cameras belong to the pixels as
            they are stored.

    Returns:
        The pixels, and where the photo has an alpha channel that is not opaque, which of them are valid
        (alpha of a half or more).

    Raises:
        InputError: The file is missing, is no image, is truncated, is larger than PIL deems safe, or nothing says what
            its numbers stand for.
    """
    _check_there(path)
    return media_files.photos.read_photo(path, upright=upright)


@as_input_error()
def photo_size(path: Path) -> tuple[int, int]:
    """Width and height as the file's header gives them, without decoding the photo and without its EXIF orientation.

    Raises:
        InputError: The file is missing or is no image.
    """
    _check_there(path)
    return media_files.photos.image_size(path, upright=False)


@as_input_error()
def photo_orientation(path: Path) -> int:
    """A photo's EXIF orientation, from 1 (upright) to 8; 5 to 8 turn it by a quarter. A PNG is decoded for it.

    Raises:
        InputError: The file is missing or is no image.
    """
    _check_there(path)
    return media_files.photos.image_orientation(path)


def _check_there(path: Path) -> None:
    if not path.exists():
        raise InputError(f"photo {path} is missing")


@as_input_error()
def write_photo(path: Path, rgb_u8: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an image in the format its name says: PNG loses nothing, JPEG has quality 95.

    Raises:
        InputError: The file cannot be written, or its ending names no image format.
    """
    media_files.photos.save_image(path, Image.fromarray(rgb_u8))


def to_u8(rgb: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert RGB in [0, 1], on any device, to bytes, rounding to the nearest; values beyond are clamped."""
    return (rgb.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_beside(path: Path, rendered: Float[Tensor, "h w 3"], photo_u8: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a render and its photo side by side.

    Raises:
        InputError: The file cannot be written.
    """
    write_photo(path, np.concatenate([to_u8(rendered), photo_u8], axis=1))


@as_input_error()
def read_mask(path: Path, *, upright: bool = False) -> Bool[np.ndarray, "h w"]:
    """Read a mask image: white is valid, black is not, a half and more counts as white.

    Where it has an alpha channel that is neither opaque nor empty everywhere, that counts; where it holds 0 and 1
    only, 1 is valid.

    Args:
        path: The file.
        upright: Turn it as its own EXIF orientation says.

    Raises:
        InputError: The file is missing or corrupt, or has small values only that are neither black nor white.
    """
    return media_files.masks.read_mask(path, upright=upright)


@as_input_error()
def write_mask(path: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """Write a mask image: white is valid, black is not.

    Raises:
        InputError: The file cannot be written.
    """
    media_files.photos.save_image(path, Image.fromarray(mask.astype(np.uint8) * 255))


def list_photos(folder: Path) -> list[str]:
    """Names of all photos in a folder and its subfolders, relative to it with ``/``, sorted; hidden ones are left out.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return sorted(
        path.relative_to(folder).as_posix() for path in media_files.photos.image_files(folder, recursive=True)
    )


@as_input_error()
def laid_over(path: Path, background: tuple[int, int, int], *, upright: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """A photo with an alpha channel as it looks before a background.

    Args:
        path: The file, which `read_photo` reads.
        background: RGB as bytes.
        upright: As for `read_photo`.
    """
    rgba = media_files.photos.open_image(path, upright=upright).convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB"))
