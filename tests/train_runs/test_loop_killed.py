"""A run that dies at any file operation goes on and ends as one that was left alone."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.faults import Killed, struck
from support.line_task import LineModelTask
from train_runs import InputError, Loop, LoopConfig, RunFolder

CONFIG = LoopConfig(max_steps=2, ema_decay=0.9, log_every=1, checkpoint_every=1, keep_checkpoints=1)


def _run(folder: Path) -> LineModelTask:
    task = LineModelTask()
    Loop(task, folder, CONFIG).train_until(CONFIG.max_steps)
    return task


def _content(folder: Path) -> dict[str, bytes]:
    """What matters of a finished run; of metrics, all but times."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".jsonl"
    }
    lines = [{k: v for k, v in line.items() if k != "waiting_fraction"} for line in RunFolder(folder).read_metrics()]
    return found | {"metrics": json.dumps(lines).encode()}


@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))], ids=["kill", "full"])
def test_a_strike_at_any_file_operation_changes_nothing_in_the_end(tmp_path: Path, error: BaseException):
    alone = tmp_path / "alone"
    with struck(alone, -1, None) as striker:
        _run(alone)
    expected, num_moments = _content(alone), striker.seen
    assert num_moments > 40
    for moment in range(1, num_moments + 1, 1 if isinstance(error, Killed) else 4):
        folder = tmp_path / f"{moment}"
        with struck(folder, moment, error), contextlib.suppress(Killed, InputError, OSError):
            _run(folder)
        _run(folder)
        assert _content(folder) == expected, moment
        shutil.rmtree(folder)


PROGRAM = """
import os, random, sys, time
import torch
from pathlib import Path
from support.line_task import LineModelTask
from train_runs import Loop, LoopConfig, RunFolder

torch.set_num_threads(1)
folder = RunFolder(Path(sys.argv[1]))
config = LoopConfig(max_steps=10**6, ema_decay=0.9, log_every=1, checkpoint_every=1)
# What an optimizer's first step imports, each child would import again.
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.zeros(1)
torch.optim.AdamW([weight]).step()
on_disk = 0
for kill in range(4):
    child = os.fork()
    if child == 0:
        loop = Loop(LineModelTask(), folder, config)
        assert loop.step >= on_disk, "a checkpoint that was on the disk is lost"
        loop.train_until(10**6)
    while max(folder.checkpoint_steps(), default=0) < on_disk + 3:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended by itself"
        time.sleep(0.001)
    time.sleep(random.Random(kill).uniform(0, 0.02))
    on_disk = max(folder.checkpoint_steps())
    os.kill(child, 9)
    os.waitpid(child, 0)

tasks = LineModelTask(), LineModelTask()
loop = Loop(tasks[0], folder, config)
assert loop.step >= on_disk > 8
loop.train_until(loop.step + 2)
Loop(tasks[1], None, config).train_until(loop.step)
expected = tasks[1].weights()
assert all(torch.equal(value, expected[name]) for name, value in tasks[0].weights().items())
assert [line["step"] for line in folder.read_metrics()] == list(range(1, loop.step + 1))
print("the same")
"""


@pytest.mark.skipif(os.name != "posix", reason="kills processes")
def test_sigkill_at_random_moments_loses_no_checkpoint_and_changes_nothing(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout == "the same\n", done.stderr
