"""Which tensors count as being on the device: a mark on the Python object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CUDA = torch.device("cuda:0")


def is_marked(value: Any) -> bool:
    """Whether a tensor counts as being on the device."""
    return isinstance(value, Tensor) and getattr(value, "_fake_cuda", False)


def marked(value: Any, on_device: bool = True) -> Any:
    """The same value, all tensors in it marked as being on the device, or not."""
    for tensor in tensors_in(value):
        tensor._fake_cuda = on_device  # pyright: ignore[reportAttributeAccessIssue]
    return value


def is_pinned(tensor: Tensor) -> bool:
    """Whether a CPU tensor counts as lying in memory that the device can read by itself."""
    return getattr(tensor, "_fake_pinned", False)


def pinned(tensor: Tensor) -> Tensor:
    """The same tensor, marked so."""
    tensor._fake_pinned = True  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_in(one)


def names_cuda(device: Any) -> bool:
    """Whether a device argument means the device."""
    return device is not None and torch.device(device).type == "cuda"
