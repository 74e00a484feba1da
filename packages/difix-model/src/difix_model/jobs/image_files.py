"""Image files: found, checked, read and written. Imports no torch."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from PIL import Image, ImageOps

from difix_model.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

JPEG_QUALITY = 95

MAX_PIXELS = 2 * 89_478_485
"""Images with more pixels are refused before they are decoded, as Pillow does: a small file can claim any size."""

_STDERR = 2
_DESCRIPTOR = threading.Lock()

_log = logging.getLogger(__name__)


def image_files(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Return the images of a folder, sorted by name; hidden files are left out.

    Args:
        folder: Where to look.
        recursive: Whether to look into its folders, too.
    """
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def open_image(path: Path) -> Image.Image:
    """Read an image file completely, turned upright as its EXIF entry says. Of several pages, the first is read.

    Raises:
        InputError: If it is absent or no readable image, or claims more than `MAX_PIXELS`.
    """
    with _reading(path), Image.open(path) as image:
        _check_size(path, image)
        with _heard(path) if image.format == "TIFF" else nullcontext():
            image.load()
        return _upright(path, image)


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height as displayed, without decoding.

    Raises:
        InputError: As `open_image`, as far as the head of the file tells.
    """
    with _reading(path), Image.open(path) as image:
        _check_size(path, image)
        turned = _orientation(image) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def save_image(path: Path, image: Image.Image) -> None:
    """Write an image file atomically; its suffix decides the format, and folders are created.

    Raises:
        InputError: If it cannot be written.
    """
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".jpeg"):
            image.convert("RGB").save(partial, quality=JPEG_QUALITY, subsampling=0)
        else:
            image.save(partial)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder does with a damaged file into one sentence; its warnings go to the log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist") from error
        except PermissionError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"{path} claims more than {MAX_PIXELS} pixels: cut it into parts") from error
        except Exception as error:
            # Mutated files bring decoders to raise anything: struct.error, IndexError, SyntaxError, zlib.error, ...
            raise InputError(f"{path} cannot be read as an image, it may be damaged or of another kind") from error
    for warning in caught:
        _log.info("%s: %s", path, warning.message)


@contextmanager
def _heard(path: Path) -> Iterator[None]:
    """Take what the TIFF library writes past Python to the terminal into the log."""
    with _DESCRIPTOR, tempfile.TemporaryFile() as said:
        before = os.dup(_STDERR)
        try:
            os.dup2(said.fileno(), _STDERR)
            yield
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            said.seek(0)
            for line in said.read().decode(errors="replace").splitlines():
                _log.info("%s: %s", path, line)


def _check_size(path: Path, image: Image.Image) -> None:
    if image.width < 1 or image.height < 1:
        raise InputError(f"{path} has no pixels ({image.width}x{image.height})")


def _upright(path: Path, image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:
        # The pixels are whole; viewers show such a file unturned, too.
        _log.warning("%s: its EXIF data is damaged (%s), so it is taken as upright", path, error)
        return image.copy()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1
