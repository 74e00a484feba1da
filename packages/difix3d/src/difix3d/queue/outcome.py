"""What comes of each task of many, wherever they are done: here, in several processes, or on a Ray cluster."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from difix3d.errors import InputError
from output_files import write_text_whole

T = TypeVar("T")
R = TypeVar("R")

FAILURES = "failed"
"""Folder of the tracebacks of scenes that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of one scene."""

    name: str
    """The scene's name."""

    error: str | None = None
    """What went wrong, in a sentence."""


def failure(error: Exception, report: Path) -> str:
    """What went wrong, in a sentence; the traceback is left in a file. For the block that caught the error."""
    write_text_whole(report, traceback.format_exc())
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def outcomes(
    tasks: Sequence[T],
    work: Callable[[T], R],
    *,
    died: Callable[[T, str], R],
    visible: Callable[[R], R],
    num_processes: int,
    ray_address: str | None,
    gpus: int = 0,
) -> Iterator[R]:
    """Do tasks on Ray, if there is an address, otherwise in several processes, or in this one; outcomes as they end.

    Args:
        tasks: What to do; can be pickled.
        work: What is done with a task; can be pickled, and does not raise.
        died: The outcome of a task whose process died, from the task and a sentence that says how.
        visible: Makes sure that what was done on another machine is to be seen here.
        num_processes: Tasks at a time; 1 means this process.
        gpus: GPUs of a task on Ray.
    """
    if ray_address is not None:
        from difix3d.queue.ray_cluster import on_ray

        yield from map(
            visible, on_ray(tasks, work, died=died, address=ray_address, num_processes=num_processes, gpus=gpus)
        )
    elif num_processes > 1:
        from difix3d.queue.local_processes import in_processes

        yield from in_processes(tasks, work, died=died, num_processes=num_processes)
    else:
        yield from map(work, tasks)
