"""How many threads torch works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread for torch's own operations within the block; kernels in numba keep theirs.

    The tensors of a splat are small: more threads make a step no quicker on a CPU, and while they wait for each other
    on busy cores they take processor time from everything else (docs/benchmarks.md).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
