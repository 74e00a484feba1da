"""Which reference goes with which image: by name, by order, by camera pose, by looks, or as a file says.

The choice can be written down and given back. Imports no torch.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from difix_model.errors import InputError, first_problems
from difix_model.references.camera_poses import CameraPoses, find_poses, poses_extent, read_poses
from difix_model.references.poses import pose_distances
from difix_model.references.similarity import similarities
from media_files.photos import image_files
from output_files import write_text_whole

FORMAT = "difix-references"
FORMAT_VERSION = 1
CHOICE_NAME = "references.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceConfig:
    """How references are chosen from a folder."""

    by: Literal["auto", "name", "order", "pose", "similarity"] = "auto"
    """By name: the photo named like the image. By order: the first photo for the first image, and so on. By pose: the
    photo whose camera is nearest, in distance over the extent of the photos' cameras plus angle in radians. By
    similarity: the photo that looks most alike in small. Auto: by pose if cameras are given; otherwise by name if every
    image has its photo; by pose if cameras lie beside the images and the photos; by order if there are as many photos
    as images; by similarity."""

    num_references: int = 1
    """References per image, nearest first; fewer where there are not so many. More than one are chosen by pose or by
    similarity only."""

    cameras: Path | None = None
    """Cameras of the images: a COLMAP folder, a transforms.json or a cameras.json. By default those that lie in the
    images' folder or beside it, otherwise those of the references, in which the images may be listed too."""

    reference_cameras: Path | None = None
    """Cameras of the references, in the same world. By default those that lie in their folder or beside it, otherwise
    those of the images."""

    def __post_init__(self) -> None:
        if self.num_references < 1:
            raise ValueError(f"num_references must be at least 1, got {self.num_references}")
        if self.num_references > 1 and self.by in ("name", "order"):
            raise ValueError(f"by {self.by} there is one reference per image, got num_references={self.num_references}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceChoice:
    """The references of some images, and why."""

    images: tuple[Path, ...]
    references: tuple[tuple[Path, ...], ...]
    """Of every image, best first."""

    method: str
    """"given" (one for all), "name", "order", "pose", "similarity", or "file"."""

    scores: tuple[tuple[float, ...], ...] | None = None
    """Per reference: the distance by pose (smaller is nearer), or the similarity (at most 1). None by other methods."""

    source: Path | None = None
    """The file that it was read from."""


def choose_references(
    images: Sequence[Path],
    reference: Path,
    config: ReferenceConfig | None = None,
    *,
    among: Sequence[Path] | None = None,
    frames: Callable[[], Iterable[Image.Image]] | None = None,
) -> ReferenceChoice:
    """Find the references of all images.

    Args:
        reference: A photo for all; a folder of photos, or a COLMAP folder with photos in `images/`; or a JSON file of
            `write_choice`, whatever the config.
        config: How to choose from a folder; None takes the defaults.
        among: What `images` are a part of, if not all of it is fixed: the order counts there.
        frames: For a video, whose `images` are only names for its frames: reads these, one after the other. If there
            are fewer, so are the images of the choice. Cameras that list none of the names go by order, if there are as
            many.

    Raises:
        InputError: If a file or folder is absent, or some image finds no reference; it names the first ten.
    """
    images = tuple(images)
    config = config or ReferenceConfig()
    if reference.is_file() and reference.suffix.lower() == ".json":
        return read_choice(reference, images)
    if reference.is_file():
        return ReferenceChoice(images=images, references=((reference,),) * len(images), method="given")
    if not reference.is_dir():
        raise InputError(f"the reference {reference} does not exist")
    folder, candidates = _photos(reference)
    if not candidates:
        raise InputError(f"the folder of references {reference} holds no images")
    if config.by == "name" or (_goes_by_name(config) and not _without_name(images, candidates)):
        return _by_name(images, candidates, folder)
    listed = images if among is None else tuple(among)
    if config.by == "order":
        return _by_order(images, listed, candidates, folder)
    if config.by in ("auto", "pose"):
        if (chosen := _by_pose(images, candidates, folder, config, in_order=frames is not None)) is not None:
            return chosen
        if config.num_references == 1 and len(candidates) == len(listed):
            return _by_order(images, listed, candidates, folder)
    scores = similarities(images if frames is None else frames(), candidates)
    return _nearest(images[: len(scores)], candidates, -scores, "similarity", config.num_references, sign=-1.0)


def _photos(reference: Path) -> tuple[Path, list[Path]]:
    folder = reference if image_files(reference) or not (reference / "images").is_dir() else reference / "images"
    return folder, image_files(folder) or image_files(folder, recursive=True)


def photos_to_choose_from(reference: Path) -> list[Path]:
    """List what a reference consists of, chosen or not: none of it may be overwritten."""
    return _photos(reference)[1] if reference.is_dir() else [reference]


def write_choice(path: Path, choice: ReferenceChoice) -> None:
    """Write a choice as JSON, atomically; paths in it are relative to its folder."""
    entries = []
    for number, (image, references) in enumerate(zip(choice.images, choice.references, strict=True)):
        entry: dict[str, Any] = {
            "image": _relative(image, path.parent),
            "references": [_relative(reference, path.parent) for reference in references],
            "method": choice.method,
        }
        if choice.scores is not None:
            entry["scores"] = [round(score, 6) for score in choice.scores[number]]
        entries.append(entry)
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "method": choice.method, "images": entries}
    write_text_whole(path, json.dumps(content, indent=1) + "\n")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # Of a name that is too long, for example.
        return False


def read_choice(path: Path, images: Sequence[Path]) -> ReferenceChoice:
    """Read which references some images have.

    Args:
        path: A file of `write_choice`, or a plain object from image to reference or list of references. Paths are
            relative to the file's folder, or absolute. An image that is not found by its path is looked up by its name.

    Raises:
        InputError: If the file cannot be used, an image is not listed, or a reference does not exist; it names the
            first ten problems.
    """
    listed = _listed(path)
    by_path = {_resolved(path.parent / name): references for name, references in listed.items()}
    by_name: dict[str, list[tuple[str, ...]]] = {}
    for name, references in listed.items():
        by_name.setdefault(Path(name).name, []).append(references)
    problems, found = [], []
    for image in images:
        references = by_path.get(_resolved(image))
        if references is None:
            alike = by_name.get(image.name, [])
            if len(alike) != 1:
                problems.append(f"{image.name} is listed {'more than once' if alike else 'nowhere'}")
                continue
            references = alike[0]
        paths = tuple(path.parent / name for name in references)
        problems += [f"{image.name}'s reference {missing} is absent" for missing in paths if not _is_file(missing)]
        found.append(paths)
    if problems:
        raise InputError(f"{path}: {first_problems(problems)}")
    return ReferenceChoice(images=tuple(images), references=tuple(found), method="file", source=path)


def _listed(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict) and content.get("format") == FORMAT:
            if content["format_version"] > FORMAT_VERSION:
                raise InputError(f"{path} was written by a newer version of difix-model: update it")
            content = {entry["image"]: entry["references"] for entry in content["images"]}
        listed = {name: (given,) if isinstance(given, str) else tuple(given) for name, given in content.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} does not list references in a known form, or is damaged") from error
    if not all(isinstance(name, str) for references in listed.values() for name in references):
        raise InputError(f"{path} does not list references in a known form, or is damaged")
    return listed


def _goes_by_name(config: ReferenceConfig) -> bool:
    given = config.cameras is not None or config.reference_cameras is not None
    return config.by == "auto" and config.num_references == 1 and not given


def _without_name(images: Sequence[Path], candidates: Sequence[Path]) -> list[str]:
    stems = {path.stem for path in candidates}
    return [path.name for path in images if path.stem not in stems]


def _by_name(images: tuple[Path, ...], candidates: list[Path], folder: Path) -> ReferenceChoice:
    if without := _without_name(images, candidates):
        raise InputError(f"{folder} holds no reference named like {first_problems(without)}: choose them another way")
    by_stem = {path.stem: path for path in candidates}
    return ReferenceChoice(images=images, references=tuple((by_stem[path.stem],) for path in images), method="name")


def _by_order(
    images: tuple[Path, ...], listed: tuple[Path, ...], candidates: list[Path], folder: Path
) -> ReferenceChoice:
    if len(candidates) != len(listed):
        raise InputError(
            f"the {len(candidates)} references in {folder} do not fit the {len(listed)} images: to go by order there "
            "must be as many, otherwise choose them another way"
        )
    of_image = dict(zip(listed, candidates, strict=True))
    return ReferenceChoice(images=images, references=tuple((of_image[path],) for path in images), method="order")


def _by_pose(
    images: tuple[Path, ...], candidates: list[Path], folder: Path, config: ReferenceConfig, *, in_order: bool
) -> ReferenceChoice | None:
    """Go by pose; None if that was not asked for and some camera is unknown."""
    wanted = config.by == "pose" or config.cameras is not None or config.reference_cameras is not None
    of_references = _cameras(config.reference_cameras, folder)
    of_images = _cameras(config.cameras, images[0].parent)
    sources = [poses for poses in (of_images, of_references) if poses is not None]
    if not sources:
        if wanted:
            raise InputError(
                f"there are no cameras beside {images[0].parent} and {folder}: name a COLMAP folder, a transforms.json "
                "or a cameras.json, or choose references by similarity"
            )
        return None
    T_image = [_first_pose(image, sources if config.cameras is None else [of_images]) for image in images]
    if in_order and config.cameras is not None and of_images is not None and not any(T is not None for T in T_image):
        T_image = _poses_in_order(images, of_images)
    order = [of_references] if config.reference_cameras is not None else [of_references, of_images]
    T_candidate = [_first_pose(path, order) for path in candidates]
    posed = [number for number, pose in enumerate(T_candidate) if pose is not None]
    without = [image.name for image, pose in zip(images, T_image, strict=True) if pose is None]
    names = " and ".join(sorted({str(poses.source) for poses in sources}))
    if without or not posed:
        missing = first_problems(without) if without else f"any of the references in {folder}"
        if wanted:
            raise InputError(f"{names} list no camera for {missing}")
        _log.info("%s list no camera for %s: references are not chosen by pose", names, missing)
        return None
    T_world_candidate = np.stack([pose for pose in T_candidate if pose is not None])
    T_world_image = np.stack([pose for pose in T_image if pose is not None])
    distances = pose_distances(T_world_image, T_world_candidate, extent=poses_extent(T_world_candidate))
    return _nearest(images, [candidates[number] for number in posed], distances, "pose", config.num_references)


def _cameras(given: Path | None, folder: Path) -> CameraPoses | None:
    return find_poses(folder) if given is None else read_poses(given)


def _poses_in_order(images: tuple[Path, ...], poses: CameraPoses) -> list[np.ndarray | None]:
    """Go over the cameras in the order of their names."""
    if len(poses.T_world_cam) != len(images):
        raise InputError(
            f"{poses.source} lists {len(poses.T_world_cam)} cameras and names none of the {len(images)} frames, such "
            f"as {images[0].name}: give one camera per frame"
        )
    return [poses.T_world_cam[name] for name in sorted(poses.T_world_cam, key=_numbers_by_value)]


def _numbers_by_value(name: str) -> list[tuple[int, str]]:
    """What sorts 2.png before 10.png."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _first_pose(image: Path, sources: Sequence[CameraPoses | None]) -> np.ndarray | None:
    return next((pose for poses in sources if poses is not None and (pose := poses.of(image)) is not None), None)


def _nearest(
    images: tuple[Path, ...],
    candidates: list[Path],
    distances: np.ndarray,
    method: str,
    num_references: int,
    sign: float = 1.0,
) -> ReferenceChoice:
    """Take the nearest candidates; an image is not its own reference."""
    chosen, scores = [], []
    resolved = [_resolved(path) for path in candidates]
    for image, row in zip(images, distances, strict=True):
        own = _resolved(image)
        order = [i for i in np.argsort(row, kind="stable") if resolved[i] != own][:num_references]
        if not order:
            raise InputError(f"the only reference of {image} would be the image itself: give other photos")
        chosen.append(tuple(candidates[i] for i in order))
        scores.append(tuple(sign * float(row[i]) for i in order))
    assert all(math.isfinite(score) for row in scores for score in row)
    return ReferenceChoice(images=images, references=tuple(chosen), method=method, scores=tuple(scores))


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        # Another drive on Windows.
        return path.resolve().as_posix()


def _resolved(path: Path) -> Path:
    return path.resolve()
