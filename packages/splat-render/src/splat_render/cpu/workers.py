"""Threads for the kernels of the CPU."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Workers:
    """Runs the parts of a kernel on threads; the kernels let go of the GIL."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = -1
        self._lock = threading.Lock()

    def run(self, work: Callable[[int], object]) -> None:
        """Call `work(worker)` for every worker and wait for all."""
        if self.num_threads == 1:
            work(0)
            return
        pool = self._own_pool()
        futures = [pool.submit(work, worker) for worker in range(1, self.num_threads)]
        work(0)
        for future in futures:
            future.result()

    def _own_pool(self) -> ThreadPoolExecutor:
        """The threads of this process; a forked child has none of its parent's."""
        with self._lock:
            if self._pool is None or self._pool_pid != os.getpid():
                self._pool = ThreadPoolExecutor(self.num_threads - 1, thread_name_prefix="splat-recon-cpu")
                self._pool_pid = os.getpid()
            return self._pool

    def run_ranges(self, count: int, kernel: Callable[[int, int], object]) -> None:
        """Call `kernel(start, stop)` on consecutive parts of `range(count)`."""
        step = -(-count // self.num_threads)
        self.run(lambda worker: kernel(min(worker * step, count), min((worker + 1) * step, count)))


@functools.cache
def workers(num_threads: int) -> Workers:
    """The threads that everyone who asks for so many parts."""
    return Workers(num_threads)
