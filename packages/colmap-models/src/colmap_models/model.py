"""A COLMAP model, binary or text: read leniently, and nothing of it lost without a word.

COLMAP's own reader ends or hangs on files that are damaged, and takes text for what it is not: it drops every other
photo of a file without the lines of keypoints, and cuts names at their first space.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from colmap_models import binary, text
from colmap_models.errors import InputError
from colmap_models.folders import is_model
from colmap_models.names import shown
from colmap_models.records import ColmapModel, ModelImage

UNIT_TOLERANCE = 1e-3
"""How far a quaternion's length may be from one before the log says that it was normalized."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


def read_model(folder: Path) -> ColmapModel:
    """Read a model, binary or text.

    Raises:
        InputError: A file is missing, cut short or of another kind, no photo is registered, or a photo's name stands
            twice with different poses; the message has the first ten problems.
    """
    reader, ending = (binary, ".bin") if is_model(folder, endings=(".bin",)) else (text, ".txt")
    problems: list[str] = []
    cameras = _collected(reader.read_cameras, folder / f"cameras{ending}", problems)
    images = _collected(reader.read_images, folder / f"images{ending}", problems)
    points = _collected(reader.read_points, folder / f"points3D{ending}", problems)
    _check_rigs(folder, ending, problems)
    if images is not None:
        images = _unique(images, problems)
    if problems or cameras is None or images is None or points is None:
        raise InputError.from_problems(f"model {folder}", problems)
    if not images:
        raise InputError(f"the model in {folder} has no registered images")
    return ColmapModel(cameras=cameras, images=images, points=points)


def read_images(path: Path) -> list[ModelImage]:
    """Read an ``images.bin`` or ``images.txt`` alone, in its order; no other file of the model need be there.

    Raises:
        InputError: It cannot be read, is cut short or of another kind.
    """
    return (binary if path.suffix.lower() == ".bin" else text).read_images(path)


def _collected(read: Callable[[Path], _T], path: Path, problems: list[str]) -> _T | None:
    try:
        return read(path)
    except InputError as error:
        problems.append(str(error))
    return None


def _check_rigs(folder: Path, ending: str, problems: list[str]) -> None:
    """Photos belong to frames of rigs: of these two files, one without the other says nothing."""
    rigs, frames = folder / f"rigs{ending}", folder / f"frames{ending}"
    for path, other, check in ((rigs, frames, binary.check_rigs), (frames, rigs, binary.check_frames)):
        if not path.is_file():
            continue
        if ending == ".bin":
            _collected(check, path, problems)
        if not other.is_file():
            problems.append(
                f"{folder} has {path.name} but lacks {other.name}, which belongs to it: copy that as well, or remove "
                f"{path.name} where no rig was used"
            )


def _unique(images: Sequence[ModelImage], problems: list[str]) -> list[ModelImage]:
    """The photos sorted by name; one that stands twice with one pose counts once, and a warning says so."""
    found: dict[str, ModelImage] = {}
    num_twice = 0
    for image in images:
        first = found.setdefault(image.name, image)
        if replace(image, image_id=first.image_id) != first:
            problems.append(
                f"photo {shown(image.name)} stands twice, as images {first.image_id} and {image.image_id} with "
                "different poses or cameras: remove or rename one of them"
            )
        elif first is not image:
            num_twice += 1
    if num_twice:
        _log.warning("%d photos stand in the model twice, with the same pose: each counts once", num_twice)
    lengths = np.array([np.linalg.norm(image.quat_wxyz) for image in found.values()])
    num_scaled = int((np.abs(lengths - 1) > UNIT_TOLERANCE).sum())
    if num_scaled:
        _log.info("%d of %d quaternions are not of length one: they are normalized", num_scaled, len(found))
    return [found[name] for name in sorted(found)]
