"""Two processes with batch 2 do what one does with batch 4, with copies of the model and with shards of it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support import train_line
from support.line_task import LineModelTask
from train_runs import InputError, Loop, Processes, read_checkpoint
from train_runs.processes import SHARDED_VARIABLE


def _launch(folder: Path, *, sharded: bool) -> None:
    """Start two processes with the environment variables of a launcher, and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK")}
    given |= {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        SHARDED_VARIABLE: str(sharded).lower(),
    }
    command = [sys.executable, "-W", "ignore", train_line.__file__, str(folder)]
    # In a group of their own, so that what hangs does not go on after the test.
    started = subprocess.Popen(
        command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output = started.communicate(timeout=300)[0].decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 0, output


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.parametrize(
    "sharded", [pytest.param(False, id="copies"), pytest.param(True, id="shards", marks=pytest.mark.slow)]
)
def test_two_processes_equal_one_with_twice_the_batch_and_resume(tmp_path: Path, sharded: bool):
    alone = LineModelTask(4)
    loop = Loop(alone, tmp_path / "alone", train_line.CONFIG)
    loop.train_until(6)
    _launch(tmp_path / "two", sharded=sharded)
    found = read_checkpoint(tmp_path / "two" / "checkpoints" / "step_000006")
    assert found.values["world_size"] == 2
    expected = read_checkpoint(tmp_path / "alone" / "checkpoints" / "step_000006")
    assert found.tensors.keys() == expected.tensors.keys()
    for name, value in found.tensors.items():
        if name != "task/num_seen":
            torch.testing.assert_close(value, expected.tensors[name], atol=1e-6, rtol=1e-4, msg=name)
    moved = LineModelTask(4).weights()["first.weight"] - alone.weights()["first.weight"]
    assert float(moved.abs().max()) > 1e-3
    assert json.loads((tmp_path / "two" / "seen.json").read_text()) == {"world_size": 2, "sharded": sharded}
    with pytest.raises(InputError, match="2 processes and there are now 1"):
        Loop(LineModelTask(2), tmp_path / "two", train_line.CONFIG)


def test_a_process_alone_has_everything_to_itself():
    processes = Processes()
    assert processes.is_main
    assert processes.all_reduce_mean({"a": 1.5}) == {"a": 1.5}
    assert processes.all_reduce_max(3) == 3
    assert processes.all_gather(["a"]) == ["a"]
    assert processes.broadcast("a") == "a"
    assert processes.shard([1, 2]) == [1, 2]
    processes.wait()
    processes.close()
