"""Which of a folder's sparse models is read."""

import logging
import struct
from pathlib import Path

from splat_recon.errors import InputError

MODEL_ROOTS = ("sparse", "colmap/sparse", ".")
"""Where a scene folder may keep its models, in numbered folders there or right there; the first that has one counts.
In the scene folder itself, a model lies right there."""

PARTS = ("cameras", "images", "points3D")
"""Files that make a model, each ending in .bin or .txt."""

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
    for root in MODEL_ROOTS:
        found = _models_under(folder, root)
        if not found:
            continue
        counts = [num_images(path) for path in found] if len(found) > 1 else [0]
        best = found[counts.index(max(counts))]
        if len(found) > 1:
            listed = ", ".join(f"{path.name} ({count} photos)" for path, count in zip(found, counts, strict=True))
            _log.warning("%s holds %d models, %s: %s is read", folder / root, len(found), listed, best.name)
        return best
    raise InputError(
        f"{folder} is not a COLMAP scene folder: there is no model (cameras, images and points3D, .bin or .txt) in "
        f"{', '.join(_places())}{_incomplete(folder)}; for photos without a model, reconstruct them first"
    )


def has_model(folder: Path) -> bool:
    """Whether `find_model` would find a model."""
    return any(_models_under(folder, root) for root in MODEL_ROOTS)


def has_parts(folder: Path) -> bool:
    """Whether a folder has files of a model, though perhaps not all."""
    return bool(_incomplete(folder)) or has_model(folder)


def num_images(model: Path) -> int:
    """How many photos a model registers, from the beginning of its file; 0 where that cannot be told."""
    from splat_recon.io import colmap_text

    if not (model / "images.bin").is_file():
        return colmap_text.num_images(model / "images.txt")
    try:
        with (model / "images.bin").open("rb") as file:
            return struct.unpack("<Q", file.read(8))[0]
    except (OSError, struct.error):
        return 0


def _named(folder: Path, model: str) -> Path:
    places = [folder / root / model for root in MODEL_ROOTS] if model.isdigit() else [folder / model]
    for place in places:
        if _is_model(place):
            return place
    raise InputError(f"scene {folder}: there is no model {model}; it has {', '.join(_found(folder)) or 'none'}")


def _found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for root in MODEL_ROOTS for path in _models_under(folder, root)]


def _models_in(root: Path) -> list[Path]:
    """The numbered models in a folder, else the folder itself, if it is one."""
    inside = sorted((path for path in root.glob("*") if path.name.isdigit() and _is_model(path)), key=_number)
    return inside or ([root] if _is_model(root) else [])


def _models_under(folder: Path, root: str) -> list[Path]:
    if root == ".":
        return [folder] if _is_model(folder) else []
    return _models_in(folder / root)


def _number(path: Path) -> int:
    return int(path.name)


def _is_model(folder: Path) -> bool:
    return any(all((folder / f"{part}{suffix}").is_file() for part in PARTS) for suffix in (".bin", ".txt"))


def _places() -> list[str]:
    return [place for root in MODEL_ROOTS if root != "." for place in (f"{root}/0", root)]


def _incomplete(folder: Path) -> str:
    """What the first folder with parts of a model lacks, as the end of a sentence."""
    for place in _places():
        for suffix in (".bin", ".txt"):
            missing = [f"{part}{suffix}" for part in PARTS if not (folder / place / f"{part}{suffix}").is_file()]
            if len(missing) < len(PARTS):
                return f" ({folder / place} lacks {', '.join(missing)})"
    return ""
