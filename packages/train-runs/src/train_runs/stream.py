"""A stream of batches: loaded in the training thread or ahead of it, with the same result and a state to save."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

BATCHES_AHEAD = 2
"""Batches that each worker may be ahead of training."""


@runtime_checkable
class Sampler(Protocol):
    """Decides what the next batches are made of, an endless and resumable sequence."""

    def next_batch(self) -> Any:
        """What the next batch is made of."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything needed to continue at the same position; serializable as JSON."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was taken."""
        ...


class BatchStream:
    """Endless batches whose saved state is that of the last batch handed out, however many are being loaded.

    Args:
        sampler: Decides what batches are made of, in this thread.
        load: Makes a batch of what the sampler decided, without chance; may run in another thread.
        num_workers: Threads that load ahead; 0 for none.
    """

    def __init__(self, sampler: Sampler, load: Callable[[Any], Any], num_workers: int = 0) -> None:
        self.sampler = sampler
        self.load = load
        self._ahead = BATCHES_AHEAD * num_workers
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="load") if num_workers else None
        self._pending: deque[tuple[Future[Any], dict[str, Any]]] = deque()
        self._state: dict[str, Any] | None = None

    def next(self) -> Any:
        """The next batch."""
        if self._pool is None:
            batch = self.load(self.sampler.next_batch())
            self._state = None
            return batch
        while len(self._pending) < self._ahead:
            chosen = self.sampler.next_batch()
            self._pending.append((self._pool.submit(self.load, chosen), self.sampler.state()))
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
