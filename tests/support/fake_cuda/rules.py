"""What a call with tensors of two devices comes to on CUDA: which are refused, and which wait for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from support.fake_cuda.marks import is_marked, tensors_in


class DeviceMismatchError(RuntimeError):
    """CUDA would have refused this call."""


WAITING = frozenset(
    [
        "item",
        "tolist",
        "__float__",
        "__int__",
        "__bool__",
        "__index__",
        "__complex__",
        "__contains__",
        "nonzero",
        "argwhere",
        "masked_select",
        "equal",
        "allclose",
        "unique",
        "unique_consecutive",
        "bincount",
        "repeat_interleave",
        "inverse",
        "inv",
        "cholesky",
        "solve",
        "lstsq",
        "is_nonzero",
    ]
)
"""Calls that make the host wait for their result, or for its size, or for whether they succeeded."""

BETWEEN_DEVICES = frozenset(
    [
        "to",
        "copy_",
        "set_",
        "type_as",
        "backward",
        "grad",
        "__deepcopy__",
        "__reduce_ex__",
        "_reduce_ex_internal",
        "data_ptr",
        "is_set_to",
        "is_shared",
        "is_same_size",
        "_has_compatible_shallow_copy_type",
        "__set__",
        "__get__",
        "result_type",
        "can_cast",
        "is_tensor",
    ]
)
"""Calls that may see tensors of two devices."""

NO_SCALARS = frozenset(
    ["cat", "concat", "stack", "hstack", "vstack", "index_select", "gather", "scatter_", "scatter_add_", "index_add_"]
)
"""Calls that take no CPU scalars beside CUDA tensors, as others do."""


def check(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a call that mixes devices in a way that CUDA refuses.

    Raises:
        DeviceMismatchError: It does.
    """
    tensors = [*tensors_in(args), *tensors_in(kwargs)]
    if name in BETWEEN_DEVICES or not any(map(is_marked, tensors)):
        return
    if name in ("__getitem__", "__setitem__", "index_put_"):
        _check_index(name, args)
        return
    foreign = [one for one in tensors if not is_marked(one) and (one.ndim > 0 or name in NO_SCALARS)]
    if foreign:
        raise DeviceMismatchError(f"{name} got tensors of two devices: {_described(tensors)}")


def _check_index(name: str, args: tuple[Any, ...]) -> None:
    """CUDA tensors may be indexed from the CPU, not the reverse; values must be where the tensor is."""
    on_device, indices = is_marked(args[0]), list(tensors_in(args[1]))
    if not on_device and any(map(is_marked, indices)):
        raise DeviceMismatchError(f"{name}: a CPU tensor {list(args[0].shape)} is indexed by one on CUDA")
    value = args[2] if len(args) > 2 else None
    # Slices are written by `copy_`, which crosses devices; indices are not.
    if indices and isinstance(value, Tensor) and value.ndim > 0 and is_marked(value) != on_device:
        raise DeviceMismatchError(f"{name}: values of another device are put at indices")


def index_traffic(name: str, args: tuple[Any, ...]) -> list[tuple[str, str]]:
    """Kinds and names of what indexing a CUDA tensor costs."""
    index = args[1]
    indices = list(tensors_in(index))
    found = [("upload", f"{name} by a CPU tensor") for one in indices if not is_marked(one)]
    parts = index if isinstance(index, tuple) else (index,)
    found += [("upload", f"{name} by a list") for part in parts if isinstance(part, list)]
    writes_number = name == "__setitem__" and len(indices) == 1 and not isinstance(args[2], Tensor)
    if any(one.dtype == torch.bool for one in indices) and not writes_number:
        found.append(("wait", f"{name} by a mask"))
    return found


def _described(tensors: list[Tensor]) -> str:
    return ", ".join(f"{'cuda' if is_marked(one) else 'cpu'} {list(one.shape)}" for one in tensors[:6])
