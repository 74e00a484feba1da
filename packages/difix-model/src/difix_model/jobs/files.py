"""Files to fix: which images, references and masks belong together, and where results go.

Imports no torch, so that a command can refuse bad input at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from difix_model.errors import InputError, first_problems
from difix_model.references.choice import (
    CHOICE_NAME,
    ReferenceChoice,
    ReferenceConfig,
    choose_references,
    photos_to_choose_from,
)
from media_files.photos import PHOTO_SUFFIXES, WRITABLE_SUFFIXES, image_files, image_size, open_image, save_image
from media_files.videos import VIDEO_SUFFIXES
from output_files import check_writable

__all__ = ["FixJob", "ReferenceConfig", "image_files", "is_video", "open_image", "plan_job", "save_image"]

BY_DEFAULT = ReferenceConfig()

SHAPE_TOLERANCE = 0.02
"""How far a mask's ratio of width to height may be from its image's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixJob:
    """Image files to fix; for videos and sequences there is `video.job.VideoJob`."""

    inputs: tuple[Path, ...]
    """Images."""

    outputs: tuple[Path, ...]
    """One per input."""

    references: tuple[tuple[Path, ...], ...]
    """The references of every image, nearest first, or none."""

    masks: tuple[Path | None, ...]
    """One per image: white where it may be changed."""

    alphas: tuple[Path | None, ...]
    """One per image: the opacity of the render."""

    weight_outputs: tuple[Path | None, ...]
    """Where the share of the fix that was let through goes, one per image."""

    choice: ReferenceChoice | None = None
    """Which references were chosen for which image, finished ones included; None if there was nothing to choose."""

    choice_output: Path | None = None
    """Where `choice` is to be written."""

    finished: tuple[Path, ...] = ()
    """Results that were there already, and are kept."""

    skipped: tuple[str, ...] = ()
    """What is wrong with the images that are left out."""


def plan_job(
    source: Path,
    out: Path,
    reference: Path | None = None,
    *,
    references: ReferenceConfig = BY_DEFAULT,
    mask: Path | None = None,
    alpha: Path | None = None,
    write_mask: Path | None = None,
    resume: bool = False,
    skip_broken: bool = False,
) -> FixJob:
    """Find out what is to be fixed and check all of it before any heavy work.

    Args:
        out: For a folder, a folder. For an image, a file with a suffix, or a folder that gets a file of the input's
            name.
        reference: A photo for all, a folder of photos, or a file of chosen references, see
            `references.choice.choose_references`. None fixes without references.
        mask: An image, or a folder of images named like the inputs; white where they may be changed.
        write_mask: A folder for the share of the fix that was let through, as gray images.
        resume: Keep results that are there already: readable, of the input's size, and not older than it.
        skip_broken: Leave out images that cannot be read, instead of refusing all.

    Returns:
        The job; nothing is written yet.

    Raises:
        InputError: If anything is absent, unreadable or would overwrite an input; it names the first ten problems.
    """
    inputs, outputs = _inputs_and_outputs(source, out)
    weight_outputs = [None if write_mask is None else write_mask / f"{path.stem}.png" for path in inputs]
    _check_distinct(inputs, [*outputs, *(path for path in weight_outputs if path is not None)])
    problems = {path: problem for path in inputs if (problem := _problem(path))}
    if not skip_broken or len(problems) == len(inputs):
        _refuse(list(problems.values()))
    whole = [path for path in inputs if path not in problems]
    choice = None if reference is None else choose_references(whole, reference, references, among=inputs)
    of_image = {} if choice is None else dict(zip(choice.images, choice.references, strict=True))
    masks, alphas = _matched(whole, mask, "mask"), _matched(whole, alpha, "opacity")
    beside = [path for path in (*masks.values(), *alphas.values()) if path is not None]
    _refuse([problem for path in sorted({*_flat(of_image.values()), *beside}) if (problem := _problem(path))])
    _check_shapes(masks, alphas)
    written = [path for path in (*outputs, *weight_outputs) if path is not None]
    photos = [] if reference is None else photos_to_choose_from(reference)
    _check_overwriting(written, [*inputs, *photos, *_flat(of_image.values()), *beside])
    for folder in sorted({path.parent for path in written}):
        check_writable(folder, keep=False)
    items = [item for item in zip(inputs, outputs, weight_outputs, strict=True) if item[0] in set(whole)]
    kept = [item for item in items if resume and _is_finished(*item)]
    items = [item for item in items if item not in kept]
    return FixJob(
        inputs=tuple(path for path, _, _ in items),
        outputs=tuple(path for _, path, _ in items),
        references=tuple(of_image.get(path, ()) for path, _, _ in items),
        masks=tuple(masks[path] for path, _, _ in items),
        alphas=tuple(alphas[path] for path, _, _ in items),
        weight_outputs=tuple(path for _, _, path in items),
        choice=choice,
        choice_output=_choice_output(source, outputs, reference, choice),
        finished=tuple(path for _, path, _ in kept),
        skipped=tuple(problems.values()),
    )


def is_video(path: Path) -> bool:
    """Tell by its name whether a file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _inputs_and_outputs(source: Path, out: Path) -> tuple[list[Path], list[Path]]:
    if source.is_dir():
        inputs = image_files(source)
        if not inputs:
            raise InputError(f"{source} holds no images ({', '.join(PHOTO_SUFFIXES)})")
        if out.is_file():
            raise InputError(f"{out} is a file: for a folder of images, --out must be a folder")
        return inputs, [out / output_name(path) for path in inputs]
    if not source.is_file():
        raise InputError(f"{source} does not exist: give an image, a folder of images, or a video")
    if is_video(source):
        raise InputError(f"{source} is a video: plan it with difix_model.video.job.plan_video")
    if source.suffix.lower() not in PHOTO_SUFFIXES:
        raise InputError(f"{source} is neither an image ({', '.join(PHOTO_SUFFIXES)}) nor a video")
    if out.suffix.lower() in WRITABLE_SUFFIXES and not out.is_dir():
        return [source], [out]
    if out.suffix and not out.is_dir():
        raise InputError(f"{out} cannot hold the result: use one of {', '.join(WRITABLE_SUFFIXES)}, or name a folder")
    return [source], [out / output_name(source)]


def output_name(source: Path) -> str:
    """Name the result of an image: as the image, or as a PNG where its kind is read but not written (HEIC, AVIF)."""
    return source.name if source.suffix.lower() in WRITABLE_SUFFIXES else f"{source.stem}.png"


def _matched(images: Sequence[Path], given: Path | None, what: str) -> dict[Path, Path | None]:
    """Find every image's mask: one for all, or those of its name in a folder."""
    if given is None or given.is_file():
        return dict.fromkeys(images, given)
    if not given.is_dir():
        raise InputError(f"the {what} {given} does not exist")
    by_stem = {path.stem: path for path in image_files(given)}
    if without := [path.name for path in images if path.stem not in by_stem]:
        raise InputError(f"{given} holds no {what} named like {first_problems(without)}")
    return {path: by_stem[path.stem] for path in images}


def _choice_output(
    source: Path, outputs: Sequence[Path], reference: Path | None, choice: ReferenceChoice | None
) -> Path | None:
    """Beside the results; not over the file that was given, and not for one photo that the user named."""
    if choice is None or (source.is_file() and choice.method in ("given", "file")):
        return None
    name = CHOICE_NAME if source.is_dir() else f"{outputs[0].stem}.{CHOICE_NAME}"
    path = outputs[0].parent / name
    return None if reference is not None and _same_file(path, reference) else path


def _problem(path: Path) -> str | None:
    """Decode an image: far quicker than fixing one, and no damaged file turns up half-way."""
    try:
        open_image(path)
    except InputError as error:
        return str(error)
    return None


def _is_finished(source: Path, out: Path, weight_out: Path | None) -> bool:
    for path in (out, weight_out):
        if path is None:
            continue
        if not path.is_file() or _problem(path) or image_size(path) != image_size(source):
            return False
        if path.stat().st_mtime < source.stat().st_mtime:
            return False
    return True


def _check_shapes(*matched: dict[Path, Path | None]) -> None:
    problems = []
    for of_image in matched:
        for image, mask in of_image.items():
            if mask is None:
                continue
            (width, height), (mask_width, mask_height) = image_size(image), image_size(mask)
            if abs(width * mask_height / (height * mask_width) - 1) > SHAPE_TOLERANCE:
                problems.append(f"{mask} is {mask_width}x{mask_height}, {image.name} is {width}x{height}")
    if problems:
        raise InputError(f"masks and opacities must have the shape of their images: {first_problems(problems)}")


def _check_distinct(inputs: Sequence[Path], written: Sequence[Path]) -> None:
    """Refuse two results in one file, as by a.png and A.png where upper and lower case are the same."""
    by_name: dict[str, list[Path]] = {}
    for path in written:
        by_name.setdefault(str(path).casefold(), []).append(path)
    alike = [paths for paths in by_name.values() if len(paths) > 1]
    clashing = [paths for paths in alike if len(set(paths)) < len(paths) or not _tells_case(inputs[0].parent)]
    if clashing:
        names = first_problems([str(paths[0]) for paths in clashing])
        raise InputError(f"several results would go to one file: {names}: rename the inputs")


def _tells_case(folder: Path) -> bool:
    """Tell whether a folder's file system distinguishes upper and lower case, by a name that is there."""
    return not folder.with_name(folder.name.swapcase()).exists() or folder.name.swapcase() == folder.name


def _check_overwriting(written: Iterable[Path], given: Iterable[Path]) -> None:
    """Compare files, not names: links and other spellings lead to one file, too."""
    files = {_file_id(path): path for path in given}
    for path in written:
        if (found := files.get(_file_id(path))) is not None:
            raise InputError(f"{found} would be overwritten by a result: choose another --out")


def _file_id(path: Path) -> tuple[int, int] | str:
    try:
        status = path.stat()
    except OSError:
        return str(path.resolve())
    return (status.st_dev, status.st_ino)


def _same_file(path: Path, other: Path) -> bool:
    return _file_id(path) == _file_id(other)


def _flat(several: Iterable[Iterable[Path]]) -> list[Path]:
    return sorted({path for paths in several for path in paths})


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise InputError(first_problems(problems))
