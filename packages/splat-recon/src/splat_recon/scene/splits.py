"""Which views train and which test."""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from splat_recon.errors import InputError
from splat_recon.io.photo_names import bare, folded

DEFAULT_TEST_EVERY = 8
"""Without a splits file, every this-many-th view tests, the first one included (the literature's convention)."""

SPLITS_FILE = "splits.json"
"""Name of the splits file that a scene folder may hold."""

SIDES = ("train", "val", "test")
"""Sides that layouts of scenes name in their own files."""

TRAIN_MARK, EVAL_MARK = "_train_", "_eval_"
"""What the policy ``names`` looks for in file names."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Names of the views that train and of those that test: disjoint, each sorted; none test with the policy none."""

    train: tuple[str, ...]
    """Views to train on."""

    test: tuple[str, ...]
    """Views held out."""

    policy: str
    """How they were chosen, in words that a report can show."""


@dataclass(frozen=True, kw_only=True)
class _SplitsFile:
    path: Path
    train: tuple[str, ...]
    test: tuple[str, ...]
    sparse_train: dict[int, tuple[str, ...]]


def make_split(
    names: Iterable[str], policy: str = "auto", *, sparse: int | None = None, scene_folder: Path | None = None
) -> Split:
    """Divide the views of a scene.

    Args:
        policy: ``auto``: the scene folder's splits.json where there is one, else the split of its own layout
            (Blender's transforms_train.json and transforms_test.json, or the lists ``train_filenames`` and
            ``test_filenames`` in transforms.json; without a test side, the validation side), else ``every:8``.
            ``every:N``: of the
            names in sorted order, those with index 0, N, 2N, ... test and the rest train. ``names``: files with
            ``_train_`` in their name train, those with ``_eval_`` test. ``glob:PATTERN`` and ``regex:PATTERN``: names
            that match test and the rest train; a glob covers the whole name or its last part, a regular expression
            is searched for in the whole name. ``none``: all train. A path ending in .txt: the test views' names, one
            per line. Anything else: the path of a splits file.
        sparse: Train on this many views only. The list of that length under ``sparse_train`` in the splits file is
            taken; where there is none, so many evenly spaced training views (the policy's text and a warning say so).
            The test views stay.
        scene_folder: Folder that may hold splits.json.

    Raises:
        InputError: The policy is none of these, the splits file is wrong or names views that the scene lacks, a side
            is empty, or there are fewer training views than `sparse`.
    """
    names = sorted(names)
    in_folder = None if scene_folder is None else scene_folder / SPLITS_FILE
    if in_folder is not None and not in_folder.is_file():
        in_folder = None
    given = _split_of_layout(scene_folder, names) if policy == "auto" and scene_folder and not in_folder else None
    if policy == "auto":
        policy = f"every:{DEFAULT_TEST_EVERY}" if in_folder is None else str(in_folder)
    file = None
    if given is not None:
        train, test, policy = given
    elif policy.startswith("every:"):
        train, test = _every(names, policy)
    elif policy == "none":
        train, test = names, []
    elif policy == "names":
        train, test = _by_names(names)
    elif policy.startswith(("glob:", "regex:")):
        train, test = _by_pattern(names, policy)
    elif policy.lower().endswith(".txt"):
        train, test = _by_list(Path(policy), names)
        policy = f"list {Path(policy).name}"
    else:
        file = _read_splits_file(Path(policy), names)
        train, test, policy = list(file.train), list(file.test), f"file {file.path.name}"
    for side, chosen in (("training", train), ("test", test)):
        if not chosen and not (policy == "none" and side == "test"):
            raise InputError(f"split {policy} leaves no {side} views of {len(names)}: choose another split")
    if sparse is not None:
        if file is None and in_folder is not None:
            file = _read_splits_file(in_folder, names)
        train, how = _sparse(train, test, sparse, file)
        policy = f"{policy}, {how}"
    return Split(train=tuple(sorted(train)), test=tuple(sorted(test)), policy=policy)


def _split_of_layout(folder: Path, names: Sequence[str]) -> tuple[list[str], list[str], str] | None:
    """Both sides as the scene's own files name them, and which files those are; None where they name none."""
    sides = {side: (f"transforms_{side}.json", _frame_names(folder / f"transforms_{side}.json")) for side in SIDES}
    if not sides["train"][1]:
        content = _json_object(folder / "transforms.json")
        sides = {side: (f"{side}_filenames", _strings(content.get(f"{side}_filenames"))) for side in SIDES}
    train_source, train_listed = sides["train"]
    test_source, test_listed = sides["test"] if sides["test"][1] else sides["val"]
    train, test = _found_among(train_listed, names), _found_among(test_listed, names)
    both = sorted(set(train) & set(test))
    if both:
        raise InputError(f"{folder}: {both[0]} is in {train_source} and in {test_source}: take it out of one")
    return (train, test, f"{train_source} and {test_source}") if train and test else None


def _frame_names(path: Path) -> list[str]:
    frames = _json_object(path).get("frames")
    frames = frames if isinstance(frames, list) else []
    return _strings([frame.get("file_path") for frame in frames if isinstance(frame, dict)])


def _strings(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _json_object(path: Path) -> dict[str, Any]:
    """A file's object; empty where there is none, for reading the scene has said so if it matters."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _found_among(file_paths: Sequence[str], names: Sequence[str]) -> list[str]:
    """The views that paths in a JSON file stand for: with or without ``images/`` before, with or without ending."""
    known = set(names)
    by_stem = {folded(bare(name)): name for name in reversed(names)} | {folded(name): name for name in names}
    found = []
    for file_path in file_paths:
        path = PurePosixPath(file_path.replace("\\", "/")).as_posix()
        options = [path, path.removeprefix("images/")]
        options += [by_stem[folded(one)] for one in options if folded(one) in by_stem]
        options += [by_stem[stem] for one in options[:2] if (stem := folded(bare(one))) in by_stem]
        found += [one for one in options if one in known][:1]
    return sorted(set(found))


def _every(names: Sequence[str], policy: str) -> tuple[list[str], list[str]]:
    number = policy.removeprefix("every:")
    if not (number.isascii() and number.isdigit() and int(number) >= 2):
        raise InputError(f"split {policy}: expected every:N with a whole number N of at least 2")
    test_every = int(number)
    train = [name for index, name in enumerate(names) if index % test_every]
    return train, list(names[::test_every])


def _by_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    train, test, problems = [], [], []
    for name in names:
        file_name = PurePosixPath(name).name
        is_train, is_test = TRAIN_MARK in file_name, EVAL_MARK in file_name
        if is_train == is_test:
            problems.append(f"{name} has {'both' if is_train else 'neither'} {TRAIN_MARK} and {EVAL_MARK} in its name")
        (train if is_train else test).append(name)
    if problems:
        raise InputError.from_problems("split names", problems)
    return train, test


def _by_pattern(names: Sequence[str], policy: str) -> tuple[list[str], list[str]]:
    kind, _, pattern = policy.partition(":")
    if kind == "glob":
        test = [name for name in names if any(fnmatchcase(one, pattern) for one in (name, PurePosixPath(name).name))]
    else:
        try:
            test = [name for name in names if re.search(pattern, name)]
        except re.error as error:
            raise InputError(f"split {policy}: not a regular expression ({error})") from None
    return sorted(set(names) - set(test)), test


def _by_list(path: Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Views listed by name, with or without ending; empty lines and those that begin with # do not count."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"list of test views {path} cannot be read: {error}") from None
    test, problems = [], []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        found = _meant(line, names)
        if len(found) != 1:
            several = f"the name of several views, {found[0]} and {found[1]}" if found else ""
            problems.append(f"{line} is {several or 'not in the scene'}")
        test += found[:1]
    if problems:
        raise InputError.from_problems(f"list of test views {path}", problems)
    return sorted(set(names) - set(test)), sorted(set(test))


def _meant(name: str, names: Sequence[str]) -> list[str]:
    """The views that a name means: that of this name, else those that differ in case, Unicode form or ending only."""
    if name in names:
        return [name]
    same = [one for one in names if folded(one) == folded(name)]
    return same or [one for one in names if folded(bare(one)) == folded(name)]


def _sparse(train: Sequence[str], test: Sequence[str], sparse: int, file: _SplitsFile | None) -> tuple[list[str], str]:
    if sparse < 1:
        raise InputError(f"sparse must be at least 1 view, got {sparse}")
    if file is not None and sparse in file.sparse_train and not set(file.sparse_train[sparse]) & set(test):
        return list(file.sparse_train[sparse]), f"sparse list of {sparse}"
    if sparse > len(train):
        raise InputError(f"sparse asks for {sparse} training views, but the split has only {len(train)}")
    last = len(train) - 1
    positions = [round(index * last / max(sparse - 1, 1)) for index in range(sparse)]
    _log.warning("no list of %d sparse views is there: evenly spaced training views are taken", sparse)
    return [train[position] for position in positions], f"{sparse} evenly spaced"


def _read_splits_file(path: Path, names: Sequence[str]) -> _SplitsFile:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"split {path}: expected auto, every:N, none, names, glob:PATTERN, regex:PATTERN, or the path of a list "
            "(.txt) or splits file (.json)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"splits file {path} cannot be read: {error}") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"splits file {path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f'splits file {path}: expected an object with "train" and "test"')
    problems: list[str] = []
    train = _name_list(content.get("train"), '"train"', names, problems)
    test = _name_list(content.get("test"), '"test"', names, problems)
    problems += [f"{name} is in both train and test" for name in sorted(set(train) & set(test))]
    sparse_train = {}
    lists = content.get("sparse_train", {})
    if not isinstance(lists, dict):
        problems.append('"sparse_train" must be an object from numbers of views to lists of names')
        lists = {}
    for number, chosen in lists.items():
        what = f'"sparse_train" of {number}'
        sparse = _name_list(chosen, what, names, problems)
        problems += [f"{name} is in both {what} and test" for name in sorted(set(sparse) & set(test))]
        if number != str(len(sparse)):
            problems.append(f"{what} lists {len(sparse)} views")
        else:
            sparse_train[len(sparse)] = sparse
    if problems:
        raise InputError.from_problems(f"splits file {path}", problems)
    return _SplitsFile(path=path, train=train, test=test, sparse_train=sparse_train)


def _name_list(value: Any, what: str, names: Sequence[str], problems: list[str]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        problems.append(f"{what} must be a list of names")
        return ()
    known, found = set(names), []
    for name in value:
        # A name in another Unicode form, or another case, is a name all the same.
        meant = [name] if name in known else _meant(name, names)
        if len(meant) == 1:
            found += meant
        elif meant:
            problems.append(f"{what} names {name}, which may be {meant[0]} or {meant[1]}")
        else:
            problems.append(f"{what} names {name}, which the scene lacks")
    if len(set(found)) != len(found):
        problems.append(f"{what} names a view twice")
    return tuple(found)
