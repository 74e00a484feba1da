"""A program of the tests: train the line of the tests in as many processes as have been started together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from support.line_task import LineModelTask
from train_runs import Loop, LoopConfig, Processes

CONFIG = LoopConfig(max_steps=6, gradient_accumulation=2, ema_decay=0.9, log_every=2, checkpoint_every=3)
"""Everything on that depends on how samples are divided: accumulation, moving average, clipping."""


def train(folder: Path) -> None:
    """One process's part of the run, with a stop that is not at a checkpoint."""
    torch.set_num_threads(1)
    processes = Processes("cpu")
    Loop(LineModelTask(2, processes=processes), folder, CONFIG, processes=processes).train_until(4)
    processes.wait()
    loop = Loop(LineModelTask(2, processes=processes), folder, CONFIG, processes=processes)
    assert loop.step == 3
    loop.train_until(6)
    if processes.is_main:
        seen = {"world_size": processes.world_size, "sharded": processes.sharded}
        (folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")
    processes.close()


if __name__ == "__main__":
    train(Path(sys.argv[1]))
