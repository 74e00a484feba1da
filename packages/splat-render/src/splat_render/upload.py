"""Bringing small things to a device without waiting for it.

A copy from ordinary memory to CUDA makes the host wait until everything before it has run; one from pinned memory does
not. What never changes is brought over once.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor


def uploaded(values: Tensor | np.ndarray, device: str | torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Values from the CPU on a device, in another type if asked for; the caller does not wait for the copy."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    tensor = tensor.to(dtype or tensor.dtype)
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that never change, on a device; the tensor is shared and not to be written to."""
    return _constant(values, device, dtype)


@functools.lru_cache(maxsize=1024)
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    # A tensor made in inference mode could not take part in a backward pass later.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
