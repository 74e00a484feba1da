"""Scenes on a Ray cluster, or on a Ray that is started on this machine. Ray is an extra."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from difix3d.errors import InputError
from difix3d.pairs.config import PairsConfig
from difix3d.pairs.local_processes import take_share_of_cores
from difix3d.pairs.run import SceneOutcome, check_visible, make_outcome
from difix3d.pairs.sources import SceneSource

LOCAL = "local"
"""The address that starts Ray on this machine."""

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""Ray sends nothing home, and nodes run the environment that they have instead of copies of the working folder."""


def run_on_ray(
    sources: Sequence[SceneSource], out: Path, config: PairsConfig, address: str, num_processes: int
) -> Iterator[SceneOutcome]:
    """Make scenes as Ray tasks of one core each.

    The nodes need this package installed, and must see `out` and the scenes' folders under the same paths.

    Args:
        sources: The scenes.
        out: Folder of the whole set.
        config: What to make.
        address: "local", or the address of a cluster.
        num_processes: Cores that a local Ray has; a cluster knows its own.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    ray = _connected(address, num_processes)
    try:
        make = ray.remote(num_cpus=1)(_make_on_one_core)
        names = {make.remote(source, i, out, config): source.name for i, source in enumerate(sources)}
        while names:
            for done in ray.wait(list(names), num_returns=1)[0]:
                name = names.pop(done)
                try:
                    outcome = check_visible(ray.get(done), out)
                except ray.exceptions.RayError as error:
                    outcome = SceneOutcome(name=name, error=f"Ray gave up on it: {str(error).strip().splitlines()[0]}")
                yield outcome
    finally:
        ray.shutdown()


def _make_on_one_core(source: SceneSource, index: int, out: Path, config: PairsConfig) -> SceneOutcome:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        take_share_of_cores(index, os.cpu_count() or 1)
        return make_outcome(source, out, config)
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)


def _connected(address: str, num_processes: int) -> Any:
    """Ray's module, connected."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError(
            "Ray is not installed: run `uv run --extra ray difix3d-pairs ...`, or use --num-processes instead of --ray"
        ) from None
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, num_cpus=num_processes, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"no Ray answers at {address}: {str(error).strip().splitlines()[0]}") from error
    return ray
