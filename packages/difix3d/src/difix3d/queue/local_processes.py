"""Tasks in several processes of this machine, which survive the death of one of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

END_SECONDS = 5.0
"""How long a process may take to end before it is killed."""


@dataclass(eq=False, slots=True)
class _Worker:
    """A process, the pipe to it, and the task that it is at."""

    process: SpawnProcess
    pipe: Connection
    task: Any = None
    busy: bool = False

    def outcome(self, died: Callable[[Any, str], Any]) -> Any:
        """What it has sent, or what is said of its task when it died."""
        task, self.task, self.busy = self.task, None, False
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(END_SECONDS)
            code = self.process.exitcode
            how = f"was ended by signal {-code} (too little memory?)" if code and code < 0 else f"ended with {code}"
            return died(task, f"its process {how}")


def in_processes(
    tasks: Sequence[T], work: Callable[[T], R], *, died: Callable[[T, str], R], num_processes: int
) -> Iterator[R]:
    """Do tasks in `num_processes` processes, which share this one's cores evenly; outcomes come as they end.

    A process that dies takes only its task with it, and another process takes over.

    Args:
        tasks: What to do; can be pickled.
        work: What is done with a task; can be pickled, and does not raise.
        died: The outcome of a task whose process died, from the task and a sentence that says how.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(tasks)
    workers: list[_Worker | None] = [None] * min(num_processes, len(waiting))
    try:
        while waiting or any(worker is not None and worker.busy for worker in workers):
            for i, worker in enumerate(workers):
                if worker is None and waiting:
                    worker = workers[i] = _started(context, work, i, len(workers))
                if worker is not None and not worker.busy and waiting:
                    worker.task, worker.busy = waiting.popleft(), True
                    worker.pipe.send(worker.task)
            busy = {worker.pipe: i for i, worker in enumerate(workers) if worker is not None and worker.busy}
            for pipe in wait(list(busy)):
                i = busy[pipe]  # type: ignore[index]
                worker = workers[i]
                assert worker is not None
                yield worker.outcome(died)
                if worker.process.exitcode is not None:
                    worker.pipe.close()
                    workers[i] = None
    finally:
        _end([worker for worker in workers if worker is not None])


def _started(context: SpawnContext, work: Callable[[Any], Any], index: int, count: int) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, index, count), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process=process, pipe=ours)


def _serve(pipe: Connection, work: Callable[[Any], Any], index: int, count: int) -> None:
    """Do the tasks that come through the pipe until it is closed."""
    # An interrupt from the keyboard reaches all processes; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    take_share_of_cores(index, count)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(work(task))


def _end_with_parent() -> None:
    """End this process when the one that started it is killed: its tasks are another command's from then on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def take_share_of_cores(index: int, count: int) -> None:
    """Let this process use every `count`-th core only: rasterizers take as many threads as there are cores to use."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[index % len(cores) :: count]) or {cores[index % len(cores)]})


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        if worker.busy:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(END_SECONDS)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
