"""Processes that train together: one interpreter loads what they need and forks, which a launcher's would each load."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.gradio_page import free_port

NUM_RANKS = 2


def run_ranks(
    program: str, *arguments: str | Path, folder: Path, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Run a program's `main()` in two processes that find themselves in a launcher's environment.

    Args:
        program: Its source, with a function `main` that takes nothing and returns an exit code or None.
        arguments: What it finds in `sys.argv`.
        folder: For what the processes print.
        environment: Further variables.

    Returns:
        What each printed to standard output; all must have ended well.
    """
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    given = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")}
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "PYTHONPATH": str(Path(__file__).parents[1])}
    given |= {"WORLD_SIZE": str(NUM_RANKS), "LOCAL_WORLD_SIZE": str(NUM_RANKS), **(environment or {})}
    # Before the fork, also what torch's optimizers load when the first is made, in three seconds.
    code = "import torch._dynamo\nfrom support.ranks import fork_ranks\n"
    code += f"{textwrap.dedent(program)}\nfork_ranks(main, {str(folder)!r})\n"
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    # In a group of their own, so that what hangs does not go on after the test.
    started = subprocess.Popen(
        command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = started.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 0, said
    return [_printed(folder, rank).read_text(encoding="utf-8") for rank in range(NUM_RANKS)]


def fork_ranks(main: Callable[[], int | None], folder: str) -> None:
    """Run a function in forked processes, and end with the largest exit code."""
    children = []
    for rank in range(NUM_RANKS):
        child = os.fork()
        if child == 0:
            os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
            os._exit(_ended(main, _printed(Path(folder), rank)))
        children.append(child)
    sys.exit(max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children))


def _ended(main: Callable[[], int | None], printed: Path) -> int:
    with printed.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        try:
            return main() or 0
        except BaseException:
            traceback.print_exc()
            return 1


def _printed(folder: Path, rank: int) -> Path:
    return folder / f"printed_by_{rank}.txt"
