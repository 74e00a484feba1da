"""Which of a folder's models is read."""

import logging
import struct
from collections.abc import Sequence
from pathlib import Path

from colmap_models.errors import InputError

MODEL_ROOTS = ("sparse", "colmap/sparse", ".")
"""Where a scene folder may keep its models, in numbered folders there or right there; the first that has one counts.
In the scene folder itself, a model lies right there."""

PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse")
"""Where a model is first looked for, as messages name it."""

PARTS = ("cameras", "images", "points3D")
"""Files that make a model, each ending in .bin or .txt."""

ENDINGS = (".bin", ".txt")
"""Endings of these files; binary files count before text."""

_log = logging.getLogger(__name__)


def find_model(folder: Path, model: str | None = None) -> Path:
    """The folder of a scene's model.

    Where structure from motion left several models, the one with the most registered photos is taken, and a warning
    says so; among equals the first by name.

    Args:
        model: The model to take instead: its folder, relative to the scene folder, or its number.

    Raises:
        InputError: There is no model, or not the one that was asked for.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: expected a COLMAP scene folder (images/ and sparse/0/)")
    if model is not None:
        return _named(folder, model)
    if (found := _largest(folder, PARTS)) is not None:
        return found
    raise InputError(
        f"{folder} is not a COLMAP scene folder: there is no model (cameras, images and points3D, .bin or .txt) in "
        f"{', '.join(PLACES)}{_incomplete(folder)}; for photos without a model, reconstruct them first"
    )


def find_images(folder: Path) -> Path | None:
    """The ``images.bin`` or ``images.txt`` that `find_model` would choose if the other parts were not needed.

    Returns:
        None if there is none.
    """
    found = _largest(folder, ("images",))
    return None if found is None else _images_file(found)


def has_model(folder: Path) -> bool:
    """Whether `find_model` would find a model."""
    return any(_models_under(folder, root) for root in MODEL_ROOTS)


def has_parts(folder: Path) -> bool:
    """Whether a folder has files of a model where one is first looked for, though perhaps not all."""
    return any(has_part(folder / place) for place in PLACES) or has_model(folder)


def has_part(folder: Path) -> bool:
    """Whether a file of a model lies right in a folder."""
    return any(is_model(folder, parts=(part,)) for part in PARTS)


def is_model(folder: Path, *, parts: Sequence[str] = PARTS, endings: Sequence[str] = ENDINGS) -> bool:
    """Whether the files of a model, or the given ones of them, lie right in a folder, all binary or all text."""
    return any(all((folder / f"{part}{ending}").is_file() for part in parts) for ending in endings)


def num_images(model: Path) -> int:
    """How many photos a model registers, from the beginning of its file; 0 where that cannot be told."""
    from colmap_models.text import read_images

    path = _images_file(model)
    try:
        if path.suffix == ".txt":
            return len(read_images(path))
        with path.open("rb") as file:
            return struct.unpack("<Q", file.read(8))[0]
    except (OSError, struct.error, InputError):
        return 0


def _images_file(model: Path) -> Path:
    binary = model / "images.bin"
    return binary if binary.is_file() else model / "images.txt"


def _named(folder: Path, model: str) -> Path:
    places = [folder / root / model for root in MODEL_ROOTS] if model.isdecimal() else [folder / model]
    for place in places:
        if is_model(place):
            return place
    found = [path.relative_to(folder).as_posix() for root in MODEL_ROOTS for path in _models_under(folder, root)]
    raise InputError(f"scene {folder}: there is no model {model}; it has {', '.join(found) or 'none'}")


def _largest(folder: Path, parts: Sequence[str]) -> Path | None:
    """Of the models in the first root that has any the one with the most photos."""
    for root in MODEL_ROOTS:
        found = _models_under(folder, root, parts)
        if not found:
            continue
        if len(found) == 1:
            return found[0]
        counts = [num_images(path) for path in found]
        best = found[counts.index(max(counts))]
        listed = ", ".join(f"{path.name} ({count} photos)" for path, count in zip(found, counts, strict=True))
        _log.warning("%s holds %d models, %s: %s is read", folder / root, len(found), listed, best.name)
        return best
    return None


def _models_under(folder: Path, root: str, parts: Sequence[str] = PARTS) -> list[Path]:
    """The numbered models in a root, else the root itself, if it is one."""
    inside = [] if root == "." else [path for path in (folder / root).glob("*") if path.name.isdecimal()]
    found = sorted((path for path in inside if is_model(path, parts=parts)), key=lambda path: int(path.name))
    return found or ([folder / root] if is_model(folder / root, parts=parts) else [])


def _incomplete(folder: Path) -> str:
    """What the first folder with parts of a model lacks, as the end of a sentence."""
    for place in PLACES:
        for ending in ENDINGS:
            missing = [f"{part}{ending}" for part in PARTS if not (folder / place / f"{part}{ending}").is_file()]
            if len(missing) < len(PARTS):
                return f" ({folder / place} lacks {', '.join(missing)})"
    return ""
