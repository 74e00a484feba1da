"""The stream of batches of a run: decoded in the training thread or ahead of it, with the same result."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from difix_train.dataset import Batch, Draw, PairDataset
from difix_train.sampler import PairSampler

BATCHES_AHEAD = 2
"""Batches that each worker may be ahead of training."""


class BatchStream:
    """Endless batches whose saved state is that of the last batch handed out, however many are being decoded.

    Args:
        dataset: Where samples come from.
        sampler: Which ones.
        num_workers: Threads that decode ahead; 0 for none.
        part: Which of the sampler's draws are decoded here, where several processes share each batch.
    """

    def __init__(
        self,
        dataset: PairDataset,
        sampler: PairSampler,
        num_workers: int,
        part: Callable[[list[Draw]], list[Draw]] = lambda draws: draws,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.part = part
        self.seconds_waited = 0.0
        """Time that training waited for data since the start."""
        self._ahead = BATCHES_AHEAD * num_workers
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode") if num_workers else None
        self._pending: deque[tuple[Future[Batch], dict[str, Any]]] = deque()
        self._state: dict[str, Any] | None = None

    def next(self) -> Batch:
        """The next batch."""
        begun = time.perf_counter()
        batch = self._next()
        self.seconds_waited += time.perf_counter() - begun
        return batch

    def _next(self) -> Batch:
        if self._pool is None:
            batch = self.dataset.batch(self.part(self.sampler.next_batch()))
            self._state = None
            return batch
        while len(self._pending) < self._ahead:
            draws = self.part(self.sampler.next_batch())
            self._pending.append((self._pool.submit(self.dataset.batch, draws), self.sampler.state()))
        future, self._state = self._pending.popleft()
        return future.result()

    def state(self) -> dict[str, Any]:
        """The sampler's state after the last batch handed out."""
        return self.sampler.state() if self._state is None else self._state

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue after the batch at which :meth:`state` was taken."""
        for future, _ in self._pending:
            future.cancel()
        self._pending.clear()
        self.sampler.load_state(state)
        self._state = state

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
