"""The fixer's training on a fake CUDA device: it trains, waits little, and goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from difix_train import (
    DataConfig,
    DifixTask,
    EvalSettings,
    LossConfig,
    Objective,
    PairDataset,
    TrainConfig,
    TrainingRun,
    evaluate_model,
    preset,
    start_from_preset,
)
from difix_train.losses.lpips import Lpips
from difix_train.losses.vgg import VGG16_PLAN, VggFeatures
from support import train_in_processes
from support.fake_cuda import FakeCuda
from support.noise_pairs import write_noise_pairs
from train_runs import Loop, Processes, RunFolder

PROMPT = "remove degradation"
DATA = DataConfig(height=32, width=32, num_workers=0)


def make_dataset() -> PairDataset:
    return PairDataset(train_in_processes.pairs()[:3], DATA)


def make_task(device: str, **options: Any) -> DifixTask:
    values: dict[str, Any] = {
        "loss": LossConfig(lpips_weight=0.0, gram_weight=0.0, l1_weight=0.5),
        "ema_decay": 0.9,
        "max_steps": 4,
        **options,
    }
    objective = values.pop("objective", None)
    rank = values.pop("lora_rank", 0)
    config = TrainConfig(batch_size=2, data=DATA, **values)
    start = start_from_preset(preset("tiny"), prompts=[PROMPT], seed=3)
    if rank:
        start.network.add_unet_lora(rank, alpha=float(rank))
    return DifixTask(
        start.network, start.text_embeddings, make_dataset(), config, objective=objective, processes=Processes(device)
    )


def make_loop(**options: Any) -> Loop:
    task = make_task("cuda", **options)
    return Loop(task, None, task.config, processes=task.processes)


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


def perceptual_objective() -> Objective:
    """LPIPS and the Gram loss over a narrow backbone of random weights."""
    torch.manual_seed(0)
    plan = tuple(channels and channels // 64 for channels in VGG16_PLAN)
    vgg = VggFeatures(plan)
    widths = [width for width in plan if width is not None]
    heads = [torch.rand(widths[count - 1]) for count in (2, 4, 7, 10, 13)]  # After the last convolution of each block.
    config = LossConfig(lpips_weight=1.0, gram_weight=1.0, gram_warmup_steps=0, gram_crop=24)
    return Objective(config, vgg=vgg, lpips=Lpips(vgg, heads))


def test_adapters_with_perceptual_losses_are_validated_and_saved(tmp_path: Path):
    def trained(device: str, folder: Path) -> TrainingRun:
        objective = perceptual_objective()
        task = make_task(device, objective=objective, loss=objective.config, trainable="lora", lora_rank=2, max_steps=3)
        run = TrainingRun(task, RunFolder(folder), validation=make_dataset())
        for _ in range(2):
            run.advance(1)
        return run

    expected = trained("cpu", tmp_path / "cpu")
    pairs = write_noise_pairs(tmp_path, side=32, prompt=PROMPT, num_train=1, num_test=2)
    with FakeCuda() as gpu:
        run = trained("cuda", tmp_path / "cuda")
        gpu.traffic.clear()
        run.loop._train_step()
        assert gpu.traffic.waits() == 1, gpu.traffic.report()
        run.advance()
        found = run.validate(make_dataset(), max_samples=2)
        examples = run.examples(make_dataset(), [0, 1])
        assert [example.fixed.shape for example in examples] == [(32, 32, 3)] * 2
        scored = evaluate_model(
            EvalSettings(pairs=pairs, model=str(tmp_path / "cuda"), split="test", max_samples=1, device="cuda")
        )
        assert scored.num_samples == 1
    expected.advance()
    wanted = expected.validate(make_dataset(), max_samples=2)
    assert found.after["right"].psnr == pytest.approx(wanted.after["right"].psnr, abs=1e-2)
    assert found.after["right"].lpips == pytest.approx(wanted.after["right"].lpips, rel=1e-2)
