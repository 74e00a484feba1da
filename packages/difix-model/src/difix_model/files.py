"""Files to fix: which images and references belong together, where results go, and how images are read and written.

Imports no torch, so that a command can refuse bad input at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from difix_model.errors import InputError, first_problems

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")

JPEG_QUALITY = 95

READ_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What PIL raises for damaged files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixJob:
    """Image files to fix, or one video."""

    inputs: tuple[Path, ...]
    """Images, or a single video."""

    outputs: tuple[Path, ...]
    """One per input."""

    references: tuple[tuple[Path, ...], ...]
    """The references of every image, nearest first, or none; of a video, one entry for all frames, or one per frame."""

    is_video: bool


def plan_job(source: Path, out: Path, reference: Path | None = None) -> FixJob:
    """Find out what is to be fixed and check all of it before any heavy work.

    Args:
        source: An image, a folder of images, or a video.
        out: For a folder, a folder. For an image or a video, a file with a suffix, or a folder that gets a file of
            the input's name.
        reference: An image for all, or a folder: images of the same names, otherwise as many images in the same
            order. None fixes without references.

    Returns:
        The job; nothing is written yet.

    Raises:
        InputError: If anything is absent, unreadable or would overwrite an input; it names the first ten problems.
    """
    if source.is_dir():
        inputs = image_files(source)
        if not inputs:
            raise InputError(f"{source} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        if out.is_file():
            raise InputError(f"{out} is a file: for a folder of images, --out must be a folder")
        outputs = [out / path.name for path in inputs]
    elif source.is_file():
        inputs = [source]
        known = VIDEO_SUFFIXES if is_video(source) else IMAGE_SUFFIXES
        if source.suffix.lower() not in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            raise InputError(f"{source} is neither an image ({', '.join(IMAGE_SUFFIXES)}) nor a video")
        if out.suffix.lower() in known and not out.is_dir():
            outputs = [out]
        elif out.suffix and not out.is_dir():
            raise InputError(f"{out} cannot hold the result: use one of {', '.join(known)}, or name a folder")
        else:
            outputs = [out / (f"{source.stem}.mp4" if is_video(source) else source.name)]
    else:
        raise InputError(f"{source} does not exist: give an image, a folder of images, or a video")
    overwritten = [path for path in outputs if path.resolve() in {given.resolve() for given in inputs}]
    if overwritten:
        raise InputError(f"{overwritten[0]} would be overwritten by its result: choose another --out")
    video = is_video(inputs[0])
    found = _video_references(reference) if video else matched_references(inputs, reference)
    references = tuple(() if path is None else (path,) for path in found)
    _check_readable([*([] if video else inputs), *{path for several in references for path in several}])
    _check_writable(outputs[0].parent)
    return FixJob(inputs=tuple(inputs), outputs=tuple(outputs), references=references, is_video=video)


def is_video(path: Path) -> bool:
    """Tell by its name whether a file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def matched_references(images: Sequence[Path], reference: Path | None) -> list[Path | None]:
    """Find each image's reference.

    Args:
        images: The images to fix.
        reference: None, one image for all, or a folder. In a folder, images of the same name (whatever the suffix)
            count; if not every image has one, the order counts, and the numbers must be equal.

    Raises:
        InputError: If there is no such file or folder, or the images cannot be matched.
    """
    if reference is None:
        return [None] * len(images)
    if reference.is_file():
        return [reference] * len(images)
    if not reference.is_dir():
        raise InputError(f"the reference {reference} does not exist")
    candidates = image_files(reference)
    by_name = {path.stem: path for path in candidates}
    without = [path.name for path in images if path.stem not in by_name]
    if not without:
        return [by_name[path.stem] for path in images]
    if len(candidates) == len(images):
        return list(candidates)
    raise InputError(
        f"the {len(candidates)} references in {reference} do not fit the {len(images)} images: give them the same "
        f"names, or as many as there are images (no reference for {first_problems(without)})"
    )


def open_image(path: Path) -> Image.Image:
    """Read an image file completely, turned upright as its EXIF entry says.

    Raises:
        InputError: If it is absent or no readable image.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except READ_ERRORS as error:
        raise InputError(f"{path} cannot be read as an image, it may be damaged or of another kind") from error


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


def _video_references(reference: Path | None) -> list[Path | None]:
    if reference is None:
        return [None]
    if reference.is_file():
        return [reference]
    if not reference.is_dir():
        raise InputError(f"the reference {reference} does not exist")
    found: list[Path | None] = [*image_files(reference)]
    if not found:
        raise InputError(f"{reference} holds no images")
    return found


def _check_readable(paths: Sequence[Path]) -> None:
    """Decode every image: far quicker than fixing one, and no damaged file turns up half-way."""
    problems = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
        except READ_ERRORS:
            problems.append(str(path))
    if problems:
        raise InputError(f"these files cannot be read as images: {first_problems(problems)}")


def _check_writable(folder: Path) -> None:
    """Write into a folder, and leave nothing there, not even the folder if there was none."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()
