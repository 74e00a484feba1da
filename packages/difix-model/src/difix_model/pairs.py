"""Training pairs: a JSON file that names degraded image, clean image, optional reference and prompt per sample."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difix_model.errors import InputError, first_problems
from output_files import write_text_whole

SPLITS = ("train", "test")
REQUIRED = ("image", "target_image", "prompt")
OPTIONAL = ("ref_image",)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRecord:
    """One training sample."""

    id: str
    """Name of the sample, unique within its split."""

    split: str
    """"train" or "test"."""

    image: Path
    """The degraded render."""

    target_image: Path
    """What the render should look like."""

    ref_image: Path | None = None
    """A captured image of the same place from nearby, if there is one."""

    prompt: str
    """Prompt to train with."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {self.split!r}")

    def paths(self) -> tuple[Path, ...]:
        """Return the image files of the sample."""
        return tuple(path for path in (self.image, self.target_image, self.ref_image) if path is not None)


def read_pairs(path: Path | str) -> list[PairRecord]:
    """Read a pairs file and check all of it, the existence of every image included.

    The form is the released one, `{"train" | "test": {id: {"image", "target_image", "ref_image"?, "prompt"}}}`.
    Relative paths are relative to the file's folder; where nothing is found there, to the working directory, as the
    released code reads them.

    Args:
        path: The JSON file.

    Returns:
        The records of both splits, in the file's order.

    Raises:
        InputError: If the file cannot be read or anything in it is wrong; it names the first ten problems.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the pairs file {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the pairs file {path} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or not set(data) & set(SPLITS):
        raise InputError(f'the pairs file {path} must be an object with the keys "train" and "test"')
    problems = [f'unknown split "{split}" (known: train, test)' for split in data if split not in SPLITS]
    records: list[PairRecord] = []
    for split in SPLITS:
        samples = data.get(split, {})
        if not isinstance(samples, dict):
            problems.append(f'"{split}" must be an object from sample names to samples')
            continue
        for sample_id, sample in samples.items():
            record = _record(str(sample_id), split, sample, path.parent, problems)
            if record is not None:
                records.append(record)
    if not problems and not records:
        problems.append("it holds no samples")
    if problems:
        raise InputError(f"the pairs file {path} has {len(problems)} problem(s): {first_problems(problems)}")
    return records


def write_pairs(path: Path | str, records: Iterable[PairRecord]) -> None:
    """Write a pairs file, atomically; image paths are stored relative to its folder.

    Args:
        path: Where to; the folder is created.

    Raises:
        InputError: If two records of a split share a name, or the file cannot be written.
    """
    path = Path(path)
    data: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
    for record in records:
        if record.id in data[record.split]:
            raise InputError(f'two {record.split} samples are named "{record.id}": names must be unique in a split')
        sample = {
            "image": _relative(record.image, path.parent),
            "target_image": _relative(record.target_image, path.parent),
        }
        if record.ref_image is not None:
            sample["ref_image"] = _relative(record.ref_image, path.parent)
        data[record.split][record.id] = sample | {"prompt": record.prompt}
    write_text_whole(path, json.dumps(data, indent=2) + "\n")


def _record(sample_id: str, split: str, sample: Any, folder: Path, problems: list[str]) -> PairRecord | None:
    where = f"{split}/{sample_id}"
    if not isinstance(sample, dict):
        problems.append(f"{where} must be an object")
        return None
    before = len(problems)
    problems += [f'{where} lacks "{name}"' for name in REQUIRED if name not in sample]
    problems += [f'{where} has an unknown key "{name}"' for name in sample if name not in REQUIRED + OPTIONAL]
    given = {name: sample[name] for name in REQUIRED + OPTIONAL if sample.get(name) is not None}
    problems += [f'{where}: "{name}" must be text' for name, value in given.items() if not isinstance(value, str)]
    if len(problems) > before:
        return None
    paths = {name: _existing(value, folder) for name, value in given.items() if name != "prompt"}
    problems += [f"{where}: no file {given[name]}" for name, found in paths.items() if found is None]
    if len(problems) > before:
        return None
    return PairRecord(id=sample_id, split=split, prompt=given["prompt"], **paths)  # type: ignore[arg-type]


def _existing(value: str, folder: Path) -> Path | None:
    for candidate in (folder / value, Path(value)):
        # Names that no file can have, such as too long ones, are errors of the system and not absences.
        with suppress(OSError):
            if candidate.is_file():
                return candidate
    return None


def _relative(image: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()
    except ValueError:  # Another drive on Windows.
        return image.resolve().as_posix()
