"""A program of the tests: begin or continue a run of a tiny network; prints the step it starts from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from difix_train import DataConfig, LossConfig, RunSettings, TrainConfig, open_run

if __name__ == "__main__":
    torch.set_num_threads(1)
    pairs, out, changes = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    config = TrainConfig(
        batch_size=2,
        validate_every=0,
        log_every=1,
        loss=LossConfig(lpips_weight=0.0, gram_weight=0.0),
        data=DataConfig(height=32, width=32),
        **changes,
    )
    resume = (out / "checkpoints").is_dir() and any((out / "checkpoints").glob("step_*"))
    run = open_run(RunSettings(pairs=pairs, out=out, preset="tiny", config=config, resume=resume))
    sys.stdout.write(f"{run.step}\n")
    sys.stdout.flush()
    while not run.done:
        run.advance()
