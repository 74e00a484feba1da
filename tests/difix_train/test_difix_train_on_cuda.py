"""The fixer's training on a fake CUDA device: it trains, waits little, and goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difix_model.config import tiny_config
from difix_train import DataConfig, DifixTask, LossConfig, Pair, PairDataset, Preset, TrainConfig, start_from_preset
from support.fake_cuda import FakeCuda
from train_runs import Loop, Processes

PROMPT = "remove degradation"
DATA = DataConfig(height=32, width=32, num_workers=0)


def make_loop(**options: Any) -> Loop:
    rng = np.random.default_rng(0)
    draw = lambda: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)  # noqa: E731
    pairs = [Pair(id=f"{i}", image=draw(), clean=draw(), references=(draw(),), prompt=PROMPT) for i in range(3)]
    loss = LossConfig(lpips_weight=0.0, gram_weight=0.0, l1_weight=0.5)
    config = TrainConfig(max_steps=4, batch_size=2, data=DATA, loss=loss, ema_decay=0.9, **options)
    start = start_from_preset(Preset(network=tiny_config, description="tiny"), prompts=[PROMPT], seed=3)
    processes = Processes("cuda")
    task = DifixTask(start.network, start.text_embeddings, PairDataset(pairs, DATA), config, processes=processes)
    return Loop(task, None, config, processes=processes)


@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "bfloat16", "gradient_checkpointing": True, "gradient_accumulation": 2}],
    ids=["float32", "bfloat16"],
)
def test_it_trains_waits_little_and_goes_on_exactly(options: dict[str, Any], tmp_path: Path):
    with FakeCuda() as gpu:
        loop = make_loop(**options)
        loop.train_until(1)
        gpu.traffic.clear()
        loop.train_until(2)
        # Losses and the norm of the gradients come over together.
        assert gpu.traffic.waits() == 1, gpu.traffic.report()
        images = 2 * 2 * 2 * 3 * 32 * 32 * options.get("gradient_accumulation", 1)
        assert images <= sum(gpu.traffic.bytes.values()) < 2 * images, "images travel as bytes"
        loop.write_checkpoint(tmp_path / "step_000002")
        loop.train_until(4)
        again = make_loop(**options)
        again.restore(tmp_path / "step_000002")
        again.train_until(4)
        for name, parameter in loop.parameters.items():
            assert parameter.is_cuda
            assert torch.equal(parameter, again.parameters[name]), name
        (optimizer,) = loop.optimizers._optimizers.values()
        assert optimizer.defaults["fused"]
