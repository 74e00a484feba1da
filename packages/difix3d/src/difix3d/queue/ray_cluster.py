"""Tasks on a Ray cluster, or on a Ray that is started on this machine. Ray is an extra."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from difix3d.errors import InputError
from difix3d.queue.local_processes import take_share_of_cores

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
"""The address that starts Ray on this machine."""

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""Ray sends nothing home, and nodes run the environment that they have instead of copies of the working folder."""


def on_ray(
    tasks: Sequence[T],
    work: Callable[[T], R],
    *,
    died: Callable[[T, str], R],
    address: str,
    num_processes: int,
    cores: int = 1,
    gpus: int = 0,
) -> Iterator[R]:
    """Do tasks as Ray tasks; outcomes come as they end.

    The nodes need this package installed, and must see all folders under the same paths.

    Args:
        tasks: What to do; can be pickled.
        work: What is done with a task; can be pickled, and does not raise.
        died: The outcome of a task that Ray gave up on, from the task and a sentence that says why.
        address: "local", or the address of a cluster.
        num_processes: Tasks at a time on a local Ray; a cluster knows its own cores.
        gpus: GPUs of a task.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    ray = _connected(address, num_processes * cores)
    try:
        do = ray.remote(num_cpus=cores, num_gpus=gpus)(_with_own_cores)
        of = {do.remote(task, i, cores, work): task for i, task in enumerate(tasks)}
        while of:
            for done in ray.wait(list(of), num_returns=1)[0]:
                task = of.pop(done)
                try:
                    outcome = ray.get(done)
                except ray.exceptions.RayError as error:
                    outcome = died(task, f"Ray gave up on it: {str(error).strip().splitlines()[0]}")
                yield outcome
    finally:
        ray.shutdown()


def _with_own_cores(task: Any, index: int, cores: int, work: Callable[[Any], Any]) -> Any:
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        take_share_of_cores(index, max(1, (os.cpu_count() or 1) // cores))
        return work(task)
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def _connected(address: str, num_cores: int) -> Any:
    """Ray's module, connected."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError(
            "Ray is not installed: put `uv run --extra ray` before the command, or use --num-processes instead of --ray"
        ) from None
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, num_cpus=num_cores, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"no Ray answers at {address}: {str(error).strip().splitlines()[0]}") from error
    return ray
