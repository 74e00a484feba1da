"""Make the pairs of many scenes: one after another, in local processes, or on a Ray cluster.

A scene's pairs depend on the settings and its name only, so the files are the same byte for byte in all three.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from difix3d.errors import InputError, as_input_error
from difix3d.pairs.config import PairsConfig
from difix3d.pairs.make import is_finished, make_scene_pairs, remove_leftovers
from difix3d.pairs.sources import SceneSource
from output_files import write_text_whole

LOCK_FILE = ".lock"
FAILURES = "failed"
"""Folder of what is known about scenes that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneOutcome:
    """The result of one scene."""

    name: str
    """The scene's name."""

    num_pairs: int = 0
    """Pairs that were kept."""

    error: str | None = None
    """What went wrong, in a sentence."""


def make_pairs(
    sources: Sequence[SceneSource],
    out: Path,
    config: PairsConfig,
    *,
    num_processes: int = 1,
    ray_address: str | None = None,
) -> Generator[SceneOutcome, None, None]:
    """Make the pairs of scenes and give the result of each, in the order in which they end.

    A scene that fails does not stop the others; its traceback is left in the folder `failed`. When the iterator is
    closed or interrupted, processes are ended and scenes that were not finished leave nothing behind.

    Args:
        sources: The scenes; finished ones are not made again.
        out: Folder of the whole set, opened with `make.open_pairs_folder`. On a Ray cluster all nodes must see it.
        num_processes: Scenes at a time. With 1, they are made in this process. An address of Ray decides by itself.
        ray_address: None: no Ray. "local": start Ray on this machine, with `num_processes` cores. Otherwise the
            address of a cluster, such as "auto" or "ray://HOST:10001".

    Raises:
        InputError: Ray is not installed or does not answer.
    """
    out = out.resolve()
    try:
        work = partial(make_outcome, out=out, config=config)
        if ray_address is not None:
            from difix3d.queue.ray_cluster import on_ray

            outcomes = on_ray(sources, work, died=_died, address=ray_address, num_processes=num_processes)
            yield from (check_visible(outcome, out) for outcome in outcomes)
        elif num_processes > 1:
            from difix3d.queue.local_processes import in_processes

            yield from in_processes(sources, work, died=_died, num_processes=num_processes)
        else:
            for source in sources:
                yield work(source)
    finally:
        remove_leftovers(out)


def _died(source: SceneSource, how: str) -> SceneOutcome:
    return SceneOutcome(name=source.name, error=how)


def make_outcome(source: SceneSource, out: Path, config: PairsConfig) -> SceneOutcome:
    """Make one scene's pairs; an error becomes part of the outcome."""
    report = out / FAILURES / f"{source.name}.txt"
    try:
        num_pairs = len(make_scene_pairs(source, out, config))
    # Whatever is wrong with one scene must not cost the others; it is reported at the end.
    except Exception as error:
        write_text_whole(report, traceback.format_exc())
        sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return SceneOutcome(name=source.name, error=sentence)
    if report.exists():
        report.unlink()
        if not any(report.parent.iterdir()):
            report.parent.rmdir()
    return SceneOutcome(name=source.name, num_pairs=num_pairs)


def check_visible(outcome: SceneOutcome, out: Path) -> SceneOutcome:
    """An outcome of another machine, with an error if its files are not to be seen here."""
    if outcome.error is None and not is_finished(out, outcome.name):
        error = f"it was made on another node, but is not in {out}: give a folder that all nodes share"
        return SceneOutcome(name=outcome.name, error=error)
    return outcome


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep a second command out of the folder meanwhile.

    Raises:
        InputError: Another command that is still running has it, or the folder cannot be written.
    """
    path = out / LOCK_FILE
    mine = f"{socket.gethostname()} {os.getpid()}"
    with as_input_error():
        out.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(mine)
                break
            except FileExistsError:
                _remove_stale(path)
        else:
            raise InputError(f"{out} is in use by another command that has just started")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    host, _, pid = path.read_text(encoding="utf-8").partition(" ")
    if host == socket.gethostname() and pid.isdigit() and not _is_running(int(pid)):
        path.unlink(missing_ok=True)
        return
    raise InputError(
        f"{path.parent} is in use by process {pid or '?'} on {host or '?'}: wait for it, or use another folder and "
        f"merge them (if that process is no more, delete {path})"
    )


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
