"""The task: learns, stops on NaN, resumes bitwise, and its checkpoints open in the pipeline."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from difix_model import tiny_config
from difix_train import (
    DataConfig,
    DifixTask,
    InputError,
    LossConfig,
    NonFiniteLossError,
    OptimizerConfig,
    Pair,
    PairDataset,
    Preset,
    TrainConfig,
    TrainingRun,
    start_from_preset,
)
from support.closeness import assert_close_to_largest
from train_runs import Loop, RunFolder

PROMPT = "remove degradation"
PIXELS = LossConfig(lpips_weight=0.0, gram_weight=0.0)
SMALL = DataConfig(height=32, width=32)
TINY = Preset(network=tiny_config, description="tiny")


def smooth_image(rng: np.random.Generator, height: int = 32, width: int = 32) -> np.ndarray:
    coarse = torch.from_numpy(rng.random((1, 3, 4, 4))).float()
    image = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def make_pairs(count: int, num_references=(1,), seed: int = 0) -> list[Pair]:
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        clean = smooth_image(rng)
        noisy = np.clip(clean + rng.normal(0, 40, clean.shape), 0, 255).astype(np.uint8)
        references = tuple(smooth_image(rng) for _ in range(num_references[index % len(num_references)]))
        pairs.append(Pair(id=f"pair_{index}", image=noisy, clean=clean, references=references, prompt=PROMPT))
    return pairs


def make_task(config: TrainConfig, pairs: list[Pair]) -> DifixTask:
    start = start_from_preset(TINY, prompts=[PROMPT], seed=3)
    return DifixTask(start.network, start.text_embeddings, PairDataset(pairs, config.data), config)


def make_loop(config: TrainConfig, pairs: list[Pair], folder: Path | None = None) -> tuple[DifixTask, Loop]:
    task = make_task(config, pairs)
    return task, Loop(task, folder, config)


def resumed(checkpoint: Path, dataset: PairDataset, config: TrainConfig) -> tuple[DifixTask, Loop]:
    task = DifixTask.from_checkpoint(checkpoint, dataset, config)
    return task, Loop(task, None, config, checkpoint=checkpoint)


def weights_of(task: DifixTask) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def averages_of(loop: Loop) -> dict[str, torch.Tensor]:
    assert loop.ema is not None
    return loop.ema.averages


BUSY = TrainConfig(
    batch_size=2,
    gradient_accumulation=2,
    ema_decay=0.9,
    trainable="all",
    log_every=3,
    loss=PIXELS,
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=2),
    data=dataclasses.replace(
        SMALL, drop_reference_prob=0.3, wrong_reference_prob=0.3, horizontal_flip_prob=0.5, vertical_flip_prob=0.5
    ),
)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_save_and_load_continue_bitwise(tmp_path: Path, num_workers: int) -> None:
    pairs = make_pairs(5, num_references=(1, 0))
    config = dataclasses.replace(BUSY, data=dataclasses.replace(BUSY.data, num_workers=num_workers))
    straight, whole = make_loop(BUSY, pairs)
    whole.train_until(6)

    _, first = make_loop(config, pairs)
    first.train_until(1)
    first.train_until(3)
    first.write_checkpoint(tmp_path / "checkpoint")
    second, loop = resumed(tmp_path / "checkpoint", PairDataset(pairs, config.data), config)
    loop.train_until(6)

    assert loop.step == whole.step == 6
    expected = weights_of(straight)
    for name, value in weights_of(second).items():
        assert torch.equal(value, expected[name]), name
    for name, value in averages_of(loop).items():
        assert torch.equal(value, averages_of(whole)[name]), name
    assert first.history + loop.history == whole.history


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    _, loop = make_loop(BUSY, make_pairs(3))
    loop.write_checkpoint(tmp_path / "checkpoint")
    wide = Preset(network=lambda: tiny_config(reference_attention=False), description="")
    start = start_from_preset(wide, prompts=[PROMPT], seed=3)
    start.network.add_unet_lora(2, alpha=2.0)
    task = DifixTask(start.network, start.text_embeddings, PairDataset(make_pairs(3), BUSY.data), BUSY)
    with pytest.raises(InputError, match="holds another network"):
        Loop(task, None, BUSY, checkpoint=tmp_path / "checkpoint")


def test_other_settings_and_other_pairs_are_refused(tmp_path: Path) -> None:
    task, loop = make_loop(BUSY, make_pairs(3))
    loop.train_until(1)
    checkpoint = tmp_path / "checkpoint"
    loop.write_checkpoint(checkpoint)
    longer = dataclasses.replace(BUSY, max_steps=99)
    assert resumed(checkpoint, task.dataset, longer)[1].step == 1
    with pytest.raises(InputError, match="batch_size was 2, now 1"):
        resumed(checkpoint, task.dataset, dataclasses.replace(BUSY, batch_size=1))
    with pytest.raises(InputError, match="3 training pairs and there are now 4"):
        resumed(checkpoint, PairDataset(make_pairs(4), BUSY.data), BUSY)
    for others in (make_pairs(3)[::-1], make_pairs(4)[1:]):
        with pytest.raises(InputError, match="other names, or another order"):
            resumed(checkpoint, PairDataset(others, BUSY.data), BUSY)


def test_two_pairs_are_overfitted() -> None:
    config = TrainConfig(
        batch_size=2,
        trainable="all",
        log_every=1,
        loss=PIXELS,
        data=SMALL,
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.0),
    )
    _, loop = make_loop(config, make_pairs(2))
    loop.train_until(40)
    first, last = loop.history[0].loss, loop.history[-1].loss
    assert last < first / 6, (first, last)


def test_bfloat16_trains_float32_weights() -> None:
    config = TrainConfig(loss=PIXELS, data=SMALL, precision="bfloat16", gradient_checkpointing=True, log_every=1)
    task, loop = make_loop(config, make_pairs(1))
    before = weights_of(task)
    loop.train_until(2)
    after = weights_of(task)
    assert all(value.dtype == torch.float32 for value in after.values())
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= set(task.trained)
    assert np.isfinite(loop.history[-1].loss)


def test_nan_stops_before_the_step_and_names_the_samples() -> None:
    config = TrainConfig(loss=PIXELS, data=SMALL, batch_size=2)
    task, loop = make_loop(config, make_pairs(2))
    with torch.no_grad():
        task.network.vae.decoder.conv_out.get_submodule("base_layer").get_parameter("bias").fill_(float("nan"))
    before = weights_of(task)
    with pytest.raises(NonFiniteLossError, match=r"step 1 .*pair_[01], pair_[01]"):
        loop.train_until(1)
    after = weights_of(task)
    assert loop.step == 0
    assert all(torch.equal(before[name], after[name]) for name in task.trained)


def test_loss_on_the_rendered_view_ignores_other_views() -> None:
    pairs = make_pairs(1)
    config = TrainConfig(loss=dataclasses.replace(PIXELS, views="rendered"), data=SMALL, log_every=1)
    losses = []
    for loss in (config.loss, PIXELS):
        _, loop = make_loop(dataclasses.replace(config, loss=loss), pairs)
        loop.train_until(1)
        losses.append(loop.history[0].loss)
    assert losses[0] != losses[1]


def test_a_prompt_without_embedding_is_refused() -> None:
    start = start_from_preset(TINY, prompts=["another"], seed=0)
    dataset = PairDataset(make_pairs(1), SMALL)
    with pytest.raises(InputError, match=r'"remove degradation".*"another"'):
        DifixTask(start.network, start.text_embeddings, dataset, TrainConfig(loss=PIXELS, data=SMALL))


def test_run_writes_metrics_checkpoints_and_a_model_for_the_pipeline(tmp_path: Path) -> None:
    from difix_model import DifixPipeline

    config = dataclasses.replace(
        BUSY, max_steps=6, log_every=2, checkpoint_every=2, validate_every=3, keep_checkpoints=2, ema_decay=0.0
    )
    pairs = make_pairs(4)
    folder = RunFolder(tmp_path / "run")
    validation = PairDataset(pairs, config.data)
    run = TrainingRun(make_task(config, pairs), folder, validation=validation, stop_at=4)
    while not run.done:
        run.advance()
    assert folder.checkpoint_steps() == [2, 4]
    assert not folder.model.exists()

    run = TrainingRun(make_task(config, pairs), folder, validation=validation)
    while not run.done:
        run.advance()
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("test", 1),
        ("train", 2),
        ("test", 3),
        ("train", 4),
        ("train", 6),
        ("test", 6),
    ]
    summary = json.loads((folder.path / "metrics.json").read_text())
    assert set(summary["test"]["after"]) == {"right", "wrong", "none"}
    assert folder.checkpoint_steps() == [4, 6]
    assert list(folder.path.rglob("*.tmp")) == []

    pipe = DifixPipeline.from_pretrained(folder.model)
    image = pairs[0].image
    assert isinstance(image, np.ndarray)
    fixed = pipe(image, pairs[0].references[0])
    assert isinstance(fixed, np.ndarray)
    assert fixed.shape == (32, 32, 3)


def test_a_saved_model_names_its_timestep_and_whether_it_was_shown_references(tmp_path: Path) -> None:
    for num_references, timestep in ((1, 50), (0, 199)):
        config = TrainConfig(data=SMALL, loss=PIXELS, timestep=timestep)
        _, loop = make_loop(config, make_pairs(2, num_references=(num_references,)))
        loop.write_model(tmp_path / "model")
        metadata = json.loads((tmp_path / "model" / "config.json").read_text())["metadata"]
        assert metadata["timestep"] == timestep
        assert metadata["uses_reference"] == (num_references > 0)


def test_recomputed_activations_give_the_same_gradients() -> None:
    """Blocks of the UNet and of the decoder run twice then, and every gradient is the same."""
    config = TrainConfig(trainable="all", loss=PIXELS, data=SMALL)
    gradients, calls = [], []
    for recompute in (False, True):
        task, loop = make_loop(dataclasses.replace(config, gradient_checkpointing=recompute), make_pairs(1))
        blocks = {"unet": "unet.down_blocks.0.resnets.0", "decoder": "vae.decoder.up_blocks.0.resnets.0"}
        counts = dict.fromkeys(blocks, 0)
        for name, place in blocks.items():

            def count(*_, name: str = name, counts: dict[str, int] = counts) -> None:
                counts[name] += 1

            # Counted at the beginning: recomputation may stop before a module ends.
            task.network.get_submodule(place).register_forward_pre_hook(count)
        loop.train_until(1)
        gradients.append({name: parameter.grad for name, parameter in task.trained.items()})
        calls.append(counts)
    assert calls[0] == {"unet": 1, "decoder": 1}
    assert calls[1] == {"unet": 2, "decoder": 2}
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[0].items():
        assert_close_to_largest(gradients[1][name], gradient, 1e-5, name)


def test_pairs_with_references_for_a_network_that_cannot_see_them_are_told(caplog: pytest.LogCaptureFixture) -> None:
    config = TrainConfig(loss=PIXELS, data=SMALL)
    for reference_attention, num_references, told in ((False, 1, True), (False, 0, False), (True, 1, False)):
        preset = Preset(network=lambda on=reference_attention: tiny_config(reference_attention=on), description="tiny")
        start = start_from_preset(preset, prompts=[PROMPT], seed=3)
        dataset = PairDataset(make_pairs(1, num_references=(num_references,)), SMALL)
        caplog.clear()
        DifixTask(start.network, start.text_embeddings, dataset, config)
        assert ("--reference-attention True" in caplog.text) == told


def test_a_validation_that_a_kill_left_out_is_made_up_for(tmp_path: Path) -> None:
    """The checkpoint of a step is written before its validation."""
    config = dataclasses.replace(BUSY, max_steps=4, checkpoint_every=2, validate_every=2, log_every=1)
    pairs = make_pairs(3)
    Loop(make_task(config, pairs), tmp_path, config).train_until(2)  # Stands for a run killed after its checkpoint.
    run = TrainingRun(make_task(config, pairs), RunFolder(tmp_path), validation=PairDataset(pairs, config.data))
    assert [line["step"] for line in run.folder.read_metrics() if line["kind"] == "test"] == [2]
    again = TrainingRun(make_task(config, pairs), RunFolder(tmp_path), validation=PairDataset(pairs, config.data))
    assert again.latest_evaluation is None
    assert [line["step"] for line in run.folder.read_metrics() if line["kind"] == "test"] == [2]


def test_checkpoint_holds_the_average_and_leaves_training_alone(tmp_path: Path) -> None:
    from difix_model import load_checkpoint

    task, loop = make_loop(BUSY, make_pairs(3))
    loop.train_until(3)
    before = weights_of(task)
    loop.write_checkpoint(tmp_path / "checkpoint")
    after = weights_of(task)
    assert all(torch.equal(before[name], after[name]) for name in before)
    saved = dict(load_checkpoint(tmp_path / "checkpoint" / "model").network.named_parameters())
    for name, average in averages_of(loop).items():
        assert torch.equal(saved[name].detach(), average), name
    assert any(not torch.equal(saved[name].detach(), before[name]) for name in task.trained)
