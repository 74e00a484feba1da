"""Photos in a form that COLMAP reads: links to those it can read, 8-bit copies of the others."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from PIL import ExifTags, Image

from media_files.photos import open_image, save_image
from media_files.tones import BITS_PER_SAMPLE, to_rgb_u8
from splat_recon.errors import InputError

READ_BY_COLMAP = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
"""Formats that COLMAP reads and writes, under these endings."""

LOSSLESS = ("PNG", "BMP", "TIFF", "PPM", "TGA", "QOI")
"""Formats whose copies are PNG; those of others are JPEG."""

_log = logging.getLogger(__name__)


def photos_for_colmap(images: Path, names: Sequence[str], folder: Path) -> tuple[Path, Mapping[str, str]]:
    """Find or make photos that COLMAP reads.

    What a file is, its content decides: a photo that a browser saved as AVIF under the name ``a.jpg`` is copied, too.
    Copies hold the pixels as they are stored, and the EXIF data without the orientation.

    Args:
        images: Folder of the photos; all can be read.
        folder: Where copies and links go, if any are needed; what is there already is kept.

    Returns:
        The folder to give to COLMAP, `images` itself if it reads all, and each photo's name in it.
    """
    formats = {name: _format(images / name) for name in names}
    foreign = {name for name in names if not _is_read(images / name, formats[name])}
    if not foreign:
        return images, {name: name for name in names}
    renamed = {name: name for name in names if name not in foreign}
    taken = {name.casefold() for name in renamed}
    for name in sorted(foreign):
        renamed[name] = _free_name(name, ".png" if formats[name] in LOSSLESS else ".jpg", taken)
        taken.add(renamed[name].casefold())
    for name, target in renamed.items():
        if not (folder / target).is_file():
            (_copy if name in foreign else _link)(images / name, folder / target)
    kinds, first = sorted({formats[name] or "?" for name in foreign}), min(foreign)
    _log.warning(
        "%d photos (%s) are copied to 8-bit JPEG or PNG, which COLMAP reads: %s is %s in the scene",
        len(foreign),
        ", ".join(kinds),
        first,
        renamed[first],
    )
    return folder, renamed


def _format(path: Path) -> str | None:
    try:
        with Image.open(path) as photo:
            return photo.format
    except Exception:
        # It was decoded before, with a reader that knows more.
        return None


def _is_read(path: Path, kind: str | None) -> bool:
    if kind is None or path.suffix.lower() not in READ_BY_COLMAP.get(kind, ()):
        return False
    with Image.open(path) as photo:
        bits = getattr(photo, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
        return photo.mode in ("L", "RGB", "RGBA") and set(bits) == {8}


def _free_name(name: str, suffix: str, taken: set[str]) -> str:
    plain = PurePosixPath(name).with_suffix(suffix).as_posix()
    return name + suffix if plain.casefold() in taken else plain


def _copy(source: Path, target: Path) -> None:
    photo = open_image(source, upright=False)
    options = {}
    with suppress(Exception):
        # Damaged EXIF data is left behind.
        exif = photo.getexif()
        exif.pop(ExifTags.Base.Orientation, None)
        options["exif"] = exif.tobytes()
    save_image(target, Image.fromarray(to_rgb_u8(photo)[0]), **options)


def _link(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for make in (os.symlink, os.link):
            with suppress(OSError):
                make(source.resolve(), target)
                return
        shutil.copyfile(source, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error}") from None
