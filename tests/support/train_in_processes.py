"""A program of the tests: train a tiny network in this process, or in as many as have been started together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from difix_train import (
    DataConfig,
    DifixTask,
    LossConfig,
    OptimizerConfig,
    Pair,
    PairDataset,
    TrainConfig,
    evaluate_pairs,
    preset,
    start_from_preset,
)
from train_runs import Loop, Processes

PROMPT = "remove degradation"
SIDE = 32


def pairs() -> list[Pair]:
    """Seven pairs of noise, each with a reference."""
    rng = np.random.default_rng(0)

    def image() -> np.ndarray:
        return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    return [Pair(id=f"{i}", image=image(), clean=image(), references=(image(),), prompt=PROMPT) for i in range(7)]


def config(batch_size: int) -> TrainConfig:
    """Everything on that depends on how samples are divided: accumulation, noise, moving average, clipping."""
    return TrainConfig(
        batch_size=batch_size,
        gradient_accumulation=2,
        ema_decay=0.9,
        trainable="released",
        log_every=1,
        loss=LossConfig(lpips_weight=0.0, gram_weight=0.0),
        # A large epsilon: Adam's first steps turn rounding differences of tiny gradients into full steps.
        optimizer=OptimizerConfig(learning_rate=1e-3, eps=1e-3),
        data=DataConfig(height=SIDE, width=SIDE, horizontal_flip_prob=0.5),
    )


def train(folder: Path, batch_size: int, stops: list[int], processes: Processes | None = None) -> list[float]:
    """Train to each stop, save there, and go on from the saved checkpoint; returns the losses of all steps."""
    torch.set_num_threads(1)
    settings = config(batch_size)
    dataset = PairDataset(pairs(), settings.data)
    start = start_from_preset(preset("tiny"), prompts=[PROMPT], seed=3)
    task = DifixTask(start.network, start.text_embeddings, dataset, settings, processes=processes)
    loop = Loop(task, None, settings, processes=processes)
    losses = []
    for number, stop in enumerate(stops):
        if number:
            saved = folder / f"{stops[number - 1]}"
            task = DifixTask.from_checkpoint(saved, dataset, settings, processes=processes)
            loop = Loop(task, None, settings, processes=processes, checkpoint=saved)
        loop.train_until(stop)
        losses += [record.loss for record in loop.history]
        loop.write_checkpoint(folder / f"{stop}")
    with loop.averaged():
        if processes is None or processes.is_main or processes.sharded:
            assert evaluate_pairs(task.fix, dataset, max_samples=2).num_samples == 2
    return losses


if __name__ == "__main__":
    processes = Processes("cpu")
    folder = Path(sys.argv[1])
    train(folder, 1, [int(stop) for stop in sys.argv[2].split(",")], processes)
    if processes.is_main:
        found = {"world_size": processes.world_size, "sharded": processes.sharded}
        (folder / "processes.json").write_text(json.dumps(found), encoding="utf-8")
    processes.close()
