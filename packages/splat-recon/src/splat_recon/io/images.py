"""Photos and masks as arrays: written, listed, and laid over a background; `media_files` reads them."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

import media_files.photos
from media_files import read_photo as read_photo
from splat_recon.errors import InputError


def write_photo(path: Path, rgb_u8: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an image in the format its name says: PNG loses nothing, JPEG has quality 95."""
    media_files.photos.save_image(path, Image.fromarray(rgb_u8))


def to_u8(rgb: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert RGB in [0, 1], on any device, to bytes, rounding to the nearest; values beyond are clamped."""
    return (rgb.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_beside(path: Path, rendered: Float[Tensor, "h w 3"], photo_u8: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a render and its photo side by side."""
    write_photo(path, np.concatenate([to_u8(rendered), photo_u8], axis=1))


def write_mask(path: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """Write a mask image: white is valid, black is not."""
    media_files.photos.save_image(path, Image.fromarray(mask.astype(np.uint8) * 255))


def list_photos(folder: Path) -> list[str]:
    """Names of all photos in a folder and its subfolders, relative to it with ``/``, sorted, without hidden ones."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return sorted(
        path.relative_to(folder).as_posix() for path in media_files.photos.image_files(folder, recursive=True)
    )


def laid_over(path: Path, background: tuple[int, int, int], *, upright: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """A photo with an alpha channel as it looks before a background.

    Args:
        path: The file, which `media_files.read_photo` reads.
        background: RGB as bytes.
        upright: As for `media_files.read_photo`.
    """
    rgba = media_files.photos.open_image(path, upright=upright).convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB"))
