"""Photos on disk: decoded completely or refused in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from splat_recon.errors import InputError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""File endings, in lower case, that count as photos when a folder is listed."""

JPEG_QUALITY = 95
"""Quality at which JPEG files are written, without chroma subsampling."""


def read_photo(
    path: Path, *, upright: bool = False
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
    """Decode all of a photo.

    Grey, palette and 16-bit images become 8-bit RGB.

    Args:
        path: The file.
        upright: Turn the photo as its EXIF orientation says. COLMAP does not, and its cameras belong to the pixels as
            they are stored.

    Returns:
        The pixels, and where the photo has an alpha channel that is not opaque, which of them are valid
        (alpha of a half or more).

    Raises:
        InputError: The file is missing, is no image, is truncated, or is larger than PIL deems safe.
    """
    with _opened(path) as photo:
        photo.load()
        return _to_rgb_u8(ImageOps.exif_transpose(photo) if upright else photo)


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height as the file's header gives them, without decoding the photo and without its EXIF orientation.

    Raises:
        InputError: The file is missing or is no image.
    """
    with _opened(path) as photo:
        return photo.size


def photo_orientation(path: Path) -> int:
    """A photo's EXIF orientation, from 1 (upright) to 8; 5 to 8 turn it by a quarter. A PNG is decoded for it.

    Raises:
        InputError: The file is missing or is no image.
    """
    with _opened(path) as photo:
        return int(photo.getexif().get(ExifTags.Base.Orientation, 1) or 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened image; whatever PIL reports while it is read comes out as an InputError that names the file."""
    try:
        with Image.open(path) as photo:
            yield photo
    except FileNotFoundError:
        raise InputError(f"photo {path} is missing") from None
    except UnidentifiedImageError:
        raise InputError(f"photo {path} is not an image that can be read: replace or remove it") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"photo {path} is too large to decode safely ({error}): make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # PIL reports broken files with all of these.
        raise InputError(f"photo {path} is corrupt ({error}): replace or remove it") from None


def _to_rgb_u8(photo: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if photo.mode in ("I;16", "I;16B", "I;16L", "I"):
        grey = np.clip(np.asarray(photo, dtype=np.float64) / 257.0, 0, 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), None
    if "A" in photo.getbands() or "transparency" in photo.info:
        rgba = np.array(photo.convert("RGBA"))
        mask = rgba[..., 3] >= 128
        return np.ascontiguousarray(rgba[..., :3]), None if mask.all() else mask
    return np.array(photo.convert("RGB")), None


def write_photo(path: Path, rgb_u8: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an image in the format its name says: PNG loses nothing, JPEG has quality 95.

    Raises:
        InputError: The file cannot be written, or its ending names no image format.
    """
    options = {"quality": JPEG_QUALITY, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    _write(path, Image.fromarray(rgb_u8), options)


def to_u8(rgb: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert RGB in [0, 1], on any device, to bytes, rounding to the nearest; values beyond are clamped."""
    return (rgb.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_beside(path: Path, rendered: Float[Tensor, "h w 3"], photo_u8: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a render and its photo side by side.

    Raises:
        InputError: The file cannot be written.
    """
    write_photo(path, np.concatenate([to_u8(rendered), photo_u8], axis=1))


def read_mask(path: Path, *, upright: bool = False) -> Bool[np.ndarray, "h w"]:
    """Read a mask image: white is valid, black is not, a half and more counts as white.

    Args:
        path: The file.
        upright: Turn it as its own EXIF orientation says.

    Raises:
        InputError: The file is missing or corrupt.
    """
    rgb_u8, _ = read_photo(path, upright=upright)
    return rgb_u8.max(axis=2) >= 128


def write_mask(path: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """Write a mask image: white is valid, black is not.

    Raises:
        InputError: The file cannot be written.
    """
    _write(path, Image.fromarray(mask.astype(np.uint8) * 255), {})


def _write(path: Path, image: Image.Image, options: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write image {path}: {error}") from None


def list_photos(folder: Path) -> list[str]:
    """Names of all photos in a folder and its subfolders, relative to it with ``/``, sorted.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def laid_over(path: Path, background: tuple[int, int, int], *, upright: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """A photo with an alpha channel as it looks before a background.

    Args:
        path: The file, which `read_photo` reads.
        background: RGB as bytes.
        upright: As for `read_photo`.
    """
    with Image.open(path) as photo:
        turned = ImageOps.exif_transpose(photo) if upright else photo
        rgba = turned.convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB"))
