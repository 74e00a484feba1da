"""Arrays whose memory is used again once nobody refers to it.

A training step needs the same dozen arrays of some megabytes over and over. Handed back to the operating system and
asked for anew, each page of them costs a fault at its first touch, which adds up to a tenth of a step.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np

LINE = 64
"""Arrays begin at a line of the processor's cache."""
PATIENCE = 400
"""Requests after which memory that nobody used is given up: a few training steps."""
SMALL = 1 << 16
"""Below so many bytes, allocation is cheap as it is."""


class _Memory:
    """A block of bytes, which is free while only this object refers to it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.array = np.empty(size + LINE, np.uint8)
        self.start = -self.array.ctypes.data % LINE
        self.last_use = 0
        self.unused_count = self.count()

    def count(self) -> int:
        """References to the array, by whatever way this interpreter counts them."""
        return sys.getrefcount(self.array)

    @property
    def is_free(self) -> bool:
        """Whether no view of the array is left; tensors made from views hold on to them."""
        return self.count() <= self.unused_count


class Recycler:
    """Gives out arrays, and their memory again when they, all views of them and all tensors on them are gone."""

    def __init__(self) -> None:
        self._blocks: list[_Memory] = []
        self._requests = 0
        self._lock = threading.Lock()

    def empty(self, shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """An array of any content, like `numpy.empty`."""
        num_bytes = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
        if num_bytes < SMALL:
            return np.empty(shape, dtype)
        with self._lock:
            self._requests += 1
            block = self._free_block(num_bytes)
            block.last_use = self._requests
            return block.array[block.start : block.start + num_bytes].view(dtype).reshape(shape)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """An array of zeros, like `numpy.zeros`."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    @property
    def num_bytes(self) -> int:
        """Memory held, in use or not."""
        return sum(block.size for block in self._blocks)

    def _free_block(self, num_bytes: int) -> _Memory:
        old = self._requests - PATIENCE
        self._blocks = [block for block in self._blocks if block.last_use > old or not block.is_free]
        fitting = [block for block in self._blocks if num_bytes <= block.size <= 1.5 * num_bytes and block.is_free]
        if fitting:
            return min(fitting, key=lambda block: block.size)
        # A little room, so that a growing number of Gaussians does not ask for new memory at every step.
        block = _Memory(num_bytes + num_bytes // 8)
        self._blocks.append(block)
        return block


RECYCLER = Recycler()
"""The one that rendering and the losses on a CPU share."""
