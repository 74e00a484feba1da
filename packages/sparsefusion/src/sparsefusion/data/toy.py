"""The published toy files: a few sequences of a category in one `.pt`, already cropped and masked."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsefusion.cameras import Cameras
from sparsefusion.data.sequence import ObjectSequence
from sparsefusion.errors import InputError

REQUIRED = ("R", "T", "f", "c", "images", "masks")
"""What every sequence of a toy file must hold."""


def load_tensors(path: Path) -> Any:
    """What a `.pt` file holds, tensors and plain containers only: nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(
            f"{path} is not a file of plain tensors and is not opened, since that could execute code: {reason}"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{path} cannot be read as a PyTorch file: {reason}") from error


def read_toy(root: Path, category: str) -> list[ObjectSequence]:
    """All sequences of a category's toy file, ``{root}/{category}/{category}_toy.pt``."""
    path = root / category / f"{category}_toy.pt"
    if not path.is_file():
        found = sorted(folder.parent.name for folder in root.glob("*/*_toy.pt"))
        raise InputError(f"{path} is missing; {root} has toy files for {', '.join(found[:10]) or 'no category'}")
    content = load_tensors(path)
    items = content.get(category) if isinstance(content, Mapping) else None
    if not isinstance(items, list | tuple):
        raise InputError(f"{path} has no list of sequences under {category!r}")
    return [_sequence(item, f"{path}, sequence {at}", f"{category}_{at:03d}") for at, item in enumerate(items)]


def _sequence(item: Any, where: str, name: str) -> ObjectSequence:
    missing = [key for key in REQUIRED if not isinstance(item, Mapping) or not isinstance(item.get(key), Tensor)]
    if missing:
        raise InputError(f"{where} lacks the tensors {', '.join(missing)}")
    parts = {key: item[key].float() for key in REQUIRED}
    count = len(parts["images"])
    shapes = {
        "R": (count, 3, 3),
        "T": (count, 3),
        "f": (count, 2),
        "c": (count, 2),
        "images": (count, 3, *parts["images"].shape[-2:]),
        "masks": (count, 1, *parts["images"].shape[-2:]),
    }
    wrong = [
        f"{key} {tuple(parts[key].shape)} instead of {shape}"
        for key, shape in shapes.items()
        if tuple(parts[key].shape) != shape
    ]
    if wrong or parts["images"].shape[-1] != parts["images"].shape[-2]:
        raise InputError(f"{where} has tensors of other shapes: {'; '.join(wrong) or 'images are not square'}")
    if any(not torch.isfinite(part).all() for part in parts.values()):
        raise InputError(f"{where} has values that are not finite")
    valid = item.get("valid_region")
    valid = valid.float() if isinstance(valid, Tensor) else torch.ones_like(parts["masks"])
    cameras = Cameras(parts["R"], parts["T"], parts["f"], parts["c"])
    names = tuple(f"{at:03d}" for at in range(count))
    return ObjectSequence(name, parts["images"], parts["masks"], valid, cameras, names)
