"""Photos: found, checked, decoded completely or refused in one sentence, and written. Imports no torch."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from media_files.errors import InputError
from media_files.tones import as_unsigned, deep_gray, is_deep, to_rgb, to_rgb_u8
from output_files import written_whole

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""File endings, in lower case, under which images are written."""

PHOTO_SUFFIXES = (
    *WRITABLE_SUFFIXES, ".avif", ".heic", ".heif", ".hif", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".tga",
    ".ppm", ".pgm", ".pnm", ".pfm", ".qoi",
)  # fmt: skip
"""File endings, in lower case, that count as photos when a folder is listed. What a file is, its content decides."""

RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr", ".hdr", ".jxl")
"""File endings of pictures that are not read."""

JPEG_QUALITY = 95
"""Quality at which JPEG files are written, without chroma subsampling."""

MAX_PIXELS = 2 * 89_478_485
"""Images with more pixels are refused before they are decoded, as Pillow does: a small file can claim any size."""

MAX_REASON = 120
"""Letters of a decoder's own words that are passed on."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_STDERR = 2
_DESCRIPTOR = threading.Lock()

_log = logging.getLogger(__name__)


def image_files(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Return the images of a folder, sorted by name; hidden files and hidden folders are left out.

    Args:
        recursive: Whether to look into its folders, too.
    """
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in PHOTO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def open_image(path: Path, *, upright: bool = True) -> Image.Image:
    """Read an image file completely. Of several pages, the first is read.

    Raises:
        InputError: If it is absent or no readable image, or claims more than `MAX_PIXELS`.
    """
    with _reading(path), Image.open(path) as image:
        _check_size(path, image)
        with _captured_stderr(path) if image.format == "TIFF" else nullcontext():
            image.load()
        read = as_unsigned(image)
        return _upright(path, read) if upright else read


def read_photo(
    path: Path, *, upright: bool = False
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
    """Decode all of a photo to 8-bit RGB, by the rules of `tones`.

    Args:
        upright: Turn the photo as its EXIF orientation says. COLMAP does not, and its cameras belong to the pixels as
            they are stored.

    Returns:
        The pixels, and where the photo has an alpha channel that is not opaque, which of them are valid
        (alpha of a half or more).

    Raises:
        InputError: As `open_image`, or nothing says what its numbers stand for.
    """
    image = open_image(path, upright=upright)
    try:
        rgb_u8, mask = to_rgb_u8(image)
    except InputError as error:
        raise InputError(f"{path} has no tones that can be known: {error}") from None
    except MemoryError:
        raise InputError(f"{path} takes more memory than there is: make it smaller") from None
    if image.mode.startswith("I") and 0 < np.asarray(image).max() <= 255:
        _log.warning("%s holds values up to 255 in 16 bits, and is read as nearly black: save it as 8-bit", path)
    return rgb_u8, mask


def image_size(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """Read width and height, as displayed or as stored, without decoding.

    Raises:
        InputError: As `open_image`, as far as the head of the file tells.
    """
    with _reading(path), Image.open(path) as image:
        _check_size(path, image)
        turned = upright and _orientation(image) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def image_orientation(path: Path) -> int:
    """A photo's EXIF orientation, from 1 (upright) to 8; 5 to 8 turn it by a quarter. A PNG is decoded for it.

    Raises:
        InputError: As `open_image`, as far as the head of the file tells.
    """
    with _reading(path), Image.open(path) as image:
        return _orientation(image)


def save_image(path: Path, image: Image.Image, **options: Any) -> None:
    """Write an image file atomically; its suffix decides the format, and folders are created.

    JPEG files get quality 95 without chroma subsampling. What a format cannot hold is converted: float tones become
    16-bit grayscale, and for JPEG everything becomes RGB.
    """
    if path.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif"):
        options = {"quality": JPEG_QUALITY, "subsampling": 0, **options}
        image = Image.fromarray(to_rgb_u8(image)[0]) if is_deep(image) else to_rgb(image)
    elif image.mode == "F" and path.suffix.lower() not in (".tif", ".tiff"):
        image = Image.fromarray((deep_gray(image) * 65535).round().astype(np.uint16))
    with written_whole(path) as partial:
        try:
            image.save(partial, **options)
        except ValueError as error:
            raise InputError(f"cannot write {path}: {error}") from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder does with a damaged file into one sentence; its warnings go to the log."""
    _register_heif(path)
    with _warnings_to_log(path):
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
        except UnidentifiedImageError as error:
            raise InputError(f"{path} cannot be read as an image: {_why_unknown(path)}") from error
        except Exception as error:
            # Mutated files bring decoders to raise anything: struct.error, IndexError, SyntaxError, zlib.error, ...
            reason = " ".join(str(error).split())[:MAX_REASON]
            raise InputError(f"{path} cannot be read as an image, it may be damaged ({reason})") from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _register_heif(path: Path) -> None:
    """Let Pillow know HEIC, where the file is one and the extra is installed."""
    head = _head(path)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        with suppress(ImportError):
            import pillow_heif  # pyright: ignore[reportMissingImports]

            pillow_heif.register_heif_opener()


def _why_unknown(path: Path) -> str:
    head = _head(path)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "it is a HEIC photo; install media-files[heic], which brings pillow-heif, or convert it to JPEG"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "it is an AVIF photo, damaged or of a kind that this Pillow does not know; convert it to PNG or JPEG"
    if head[:4] in _TIFF_HEADS:
        return (
            "it is a TIFF or raw photo that is damaged, or of a kind that is not read, such as colors of 32 bits; "
            "save it as TIFF or PNG with 8 or 16 bits per channel"
        )
    return "it may be damaged or of another kind"


_warned = threading.local()
_warnings_lock = threading.Lock()
_num_readers = 0
_caught: Any = None


def _to_log(message: Warning | str, *_: object, **__: object) -> None:
    _log.info("%s: %s", getattr(_warned, "path", "an image"), message)


@contextmanager
def _warnings_to_log(path: Path) -> Iterator[None]:
    """Send warnings to the log, whatever the process does with them otherwise.

    Python's filters belong to the whole process, so that threads that read at the same time share one change of them:
    the first one makes it and the last one takes it back.
    """
    global _num_readers, _caught
    with _warnings_lock:
        if not _num_readers:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = _to_log
        _num_readers += 1
    before = getattr(_warned, "path", None)
    _warned.path = path
    try:
        yield
    finally:
        _warned.path = before
        with _warnings_lock:
            _num_readers -= 1
            if not _num_readers:
                _caught.__exit__(None, None, None)


@contextmanager
def _captured_stderr(path: Path) -> Iterator[None]:
    """Take what the TIFF library writes past Python to the terminal into the log."""
    with _DESCRIPTOR, tempfile.TemporaryFile() as captured:
        before = os.dup(_STDERR)
        try:
            os.dup2(captured.fileno(), _STDERR)
            yield
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            captured.seek(0)
            for line in captured.read().decode(errors="replace").splitlines():
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
        return int(image.getexif().get(ExifTags.Base.Orientation, 1) or 1)
    except Exception:
        return 1
