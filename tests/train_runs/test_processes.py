"""Two processes with batch 2 do what one does with batch 4, with copies of the model and with shards of it."""

import json
from pathlib import Path

import pytest
import torch

from support import train_line
from support.line_task import LineModelTask
from support.ranks import run_ranks
from train_runs import InputError, Loop, Processes, read_checkpoint
from train_runs.processes import SHARDED_VARIABLE

PROGRAM = """
    import sys
    from pathlib import Path
    import accelerate
    from support.train_line import train

    def main():
        train(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "sharded", [pytest.param(False, id="copies"), pytest.param(True, id="shards", marks=pytest.mark.slow)]
)
def test_two_processes_equal_one_with_twice_the_batch_and_resume(tmp_path: Path, sharded: bool):
    alone = LineModelTask(4)
    loop = Loop(alone, tmp_path / "alone", train_line.CONFIG)
    loop.train_until(6)
    environment = {"ACCELERATE_USE_CPU": "true", SHARDED_VARIABLE: str(sharded).lower()}
    run_ranks(PROGRAM, tmp_path / "two", folder=tmp_path, environment=environment)
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
