"""Scenes in several processes of this machine, which survive the death of one of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.run import SceneOutcome, make_outcome
from difix3d.pairs.sources import SceneSource

END_SECONDS = 5.0
"""How long a process may take to end before it is killed."""


@dataclass(eq=False, slots=True)
class _Worker:
    """A process, the pipe to it, and the scene that it is at."""

    process: SpawnProcess
    pipe: Connection
    scene: str | None = None

    def outcome(self) -> SceneOutcome:
        """What it has sent, or that it died."""
        name, self.scene = self.scene or "", None
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(END_SECONDS)
            code = self.process.exitcode
            how = f"was ended by signal {-code} (too little memory?)" if code and code < 0 else f"ended with {code}"
            return SceneOutcome(name=name, error=f"its process {how}")


def run_in_processes(
    sources: Sequence[SceneSource], out: Path, config: PairsConfig, num_processes: int
) -> Iterator[SceneOutcome]:
    """Make scenes in `num_processes` processes, which share this one's cores evenly.

    A process that dies takes only its scene with it: the scene's outcome says so, and another process takes over.

    Args:
        sources: The scenes.
        out: Folder of the whole set.
        config: What to make.
        num_processes: How many at a time.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(sources)
    workers: list[_Worker | None] = [None] * min(num_processes, len(waiting))
    try:
        while waiting or any(worker is not None and worker.scene for worker in workers):
            for i, worker in enumerate(workers):
                if worker is None and waiting:
                    worker = workers[i] = _started(context, out, config, i, len(workers))
                if worker is not None and worker.scene is None and waiting:
                    source = waiting.popleft()
                    worker.scene = source.name
                    worker.pipe.send(source)
            busy = {worker.pipe: i for i, worker in enumerate(workers) if worker is not None and worker.scene}
            for pipe in wait(list(busy)):
                i = busy[pipe]  # type: ignore[index]
                worker = workers[i]
                assert worker is not None
                yield worker.outcome()
                if worker.process.exitcode is not None:
                    worker.pipe.close()
                    workers[i] = None
    finally:
        _end([worker for worker in workers if worker is not None])


def _started(context: SpawnContext, out: Path, config: PairsConfig, index: int, count: int) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, out, config, index, count), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process=process, pipe=ours)


def _work(pipe: Connection, out: Path, config: PairsConfig, index: int, count: int) -> None:
    """Make the scenes that come through the pipe until it is closed."""
    # An interrupt from the keyboard reaches all processes; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    take_share_of_cores(index, count)
    while True:
        try:
            source = pipe.recv()
        except EOFError:
            return
        pipe.send(make_outcome(source, out, config))


def take_share_of_cores(index: int, count: int) -> None:
    """Let this process use every `count`-th core only: rasterizers take as many threads as there are cores to use."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[index % len(cores) :: count]) or {cores[index % len(cores)]})


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        if worker.scene:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(END_SECONDS)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
