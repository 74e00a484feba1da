"""The engine: learns, stops on NaN, resumes bitwise, and its checkpoints open in the pipeline."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from difix_model.config import tiny_config
from difix_train import (
    DataConfig,
    DifixTrainer,
    InputError,
    LossConfig,
    NonFiniteLossError,
    OptimizerConfig,
    Pair,
    PairDataset,
    Preset,
    RunFolder,
    TrainConfig,
    TrainingRun,
    start_from_preset,
)
from difix_train.state import newest_whole

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
        target = smooth_image(rng)
        noisy = np.clip(target + rng.normal(0, 40, target.shape), 0, 255).astype(np.uint8)
        references = tuple(smooth_image(rng) for _ in range(num_references[index % len(num_references)]))
        pairs.append(Pair(id=f"pair_{index}", image=noisy, target=target, references=references, prompt=PROMPT))
    return pairs


def make_trainer(config: TrainConfig, pairs: list[Pair]) -> DifixTrainer:
    start = start_from_preset(TINY, prompts=[PROMPT], seed=3)
    return DifixTrainer(start.network, start.text_embeddings, PairDataset(pairs, config.data), config)


def parameters_of(trainer: DifixTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


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
    straight = make_trainer(BUSY, pairs)
    straight.train_until(6)

    first = make_trainer(config, pairs)
    first.train_until(1)
    first.train_until(3)
    first.save(tmp_path / "checkpoint")
    resumed = DifixTrainer.load(tmp_path / "checkpoint", PairDataset(pairs, config.data), config)
    resumed.train_until(6)

    assert resumed.step == straight.step == 6
    expected = parameters_of(straight)
    for name, value in parameters_of(resumed).items():
        assert torch.equal(value, expected[name]), name
    assert straight.average is not None
    assert resumed.average is not None
    for name, value in resumed.average.averages.items():
        assert torch.equal(value, straight.average.averages[name]), name
    assert first.history + resumed.history == straight.history


def test_checkpoint_holds_the_average_and_leaves_training_alone(tmp_path: Path) -> None:
    from difix_model.formats.checkpoint import load_checkpoint

    trainer = make_trainer(BUSY, make_pairs(3))
    trainer.train_until(3)
    before = parameters_of(trainer)
    trainer.save(tmp_path / "checkpoint")
    after = parameters_of(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before)
    saved = dict(load_checkpoint(tmp_path / "checkpoint" / "model").network.named_parameters())
    assert trainer.average is not None
    for name, average in trainer.average.averages.items():
        assert torch.equal(saved[name].detach(), average), name
    assert any(not torch.equal(saved[name].detach(), before[name]) for name in trainer.trained)


def test_damaged_checkpoint_is_refused_and_the_one_before_it_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(BUSY, make_pairs(3))
    folders = [tmp_path / "step_000001", tmp_path / "step_000002"]
    for step, folder in enumerate(folders, start=1):
        trainer.train_until(step)
        trainer.save(folder)
    assert newest_whole(folders) == folders[1]
    path = folders[1] / "training.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged: training\.safetensors"):
        DifixTrainer.load(folders[1], trainer.dataset, BUSY)
    assert newest_whole(folders) == folders[0]
    assert "step_000002" in caplog.text
    (folders[0] / "training.safetensors").unlink()
    with pytest.raises(InputError, match="none of the checkpoints"):
        newest_whole(folders)


def test_a_changed_counter_is_damage_and_a_checkpoint_without_that_checksum_loads(tmp_path: Path) -> None:
    trainer = make_trainer(BUSY, make_pairs(3))
    trainer.train_until(1)
    trainer.save(tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "training.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"step": 7}))
    with pytest.raises(InputError, match=r"damaged: training\.json"):
        DifixTrainer.load(tmp_path / "checkpoint", trainer.dataset, BUSY)
    # As they were written before there were these two digests.
    del values["sha256_of_this"], values["sampler"]["pairs_sha256"]
    path.write_text(json.dumps(values))
    assert DifixTrainer.load(tmp_path / "checkpoint", trainer.dataset, BUSY).step == 1


def test_other_settings_and_other_pairs_are_refused(tmp_path: Path) -> None:
    trainer = make_trainer(BUSY, make_pairs(3))
    trainer.train_until(1)
    trainer.save(tmp_path / "checkpoint")
    longer = dataclasses.replace(BUSY, max_steps=99)
    assert DifixTrainer.load(tmp_path / "checkpoint", trainer.dataset, longer).step == 1
    other = dataclasses.replace(BUSY, batch_size=1)
    with pytest.raises(InputError, match="batch_size was 2, now 1"):
        DifixTrainer.load(tmp_path / "checkpoint", trainer.dataset, other)
    with pytest.raises(InputError, match="3 training pairs and there are now 4"):
        DifixTrainer.load(tmp_path / "checkpoint", PairDataset(make_pairs(4), BUSY.data), BUSY)
    for others in (make_pairs(3)[::-1], make_pairs(4)[1:]):
        with pytest.raises(InputError, match="other names, or another order"):
            DifixTrainer.load(tmp_path / "checkpoint", PairDataset(others, BUSY.data), BUSY)


def test_two_pairs_are_learned_by_heart() -> None:
    config = TrainConfig(
        batch_size=2,
        trainable="all",
        log_every=1,
        loss=PIXELS,
        data=SMALL,
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.0),
    )
    trainer = make_trainer(config, make_pairs(2))
    trainer.train_until(40)
    first, last = trainer.history[0].loss, trainer.history[-1].loss
    assert last < first / 6, (first, last)


def test_bfloat16_trains_float32_weights() -> None:
    config = TrainConfig(loss=PIXELS, data=SMALL, precision="bfloat16", gradient_checkpointing=True, log_every=1)
    trainer = make_trainer(config, make_pairs(1))
    before = parameters_of(trainer)
    trainer.train_until(2)
    after = parameters_of(trainer)
    assert all(value.dtype == torch.float32 for value in after.values())
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= set(trainer.trained)
    assert np.isfinite(trainer.history[-1].loss)


def test_nan_stops_before_the_step_and_names_the_samples() -> None:
    config = TrainConfig(loss=PIXELS, data=SMALL, batch_size=2)
    trainer = make_trainer(config, make_pairs(2))
    with torch.no_grad():
        trainer.network.vae.decoder.conv_out.get_submodule("base_layer").get_parameter("bias").fill_(float("nan"))
    before = parameters_of(trainer)
    with pytest.raises(NonFiniteLossError, match=r"step 1 .*pair_[01], pair_[01]"):
        trainer.train_until(1)
    after = parameters_of(trainer)
    assert trainer.step == 0
    assert all(torch.equal(before[name], after[name]) for name in trainer.trained)


def test_loss_on_the_target_view_ignores_other_views() -> None:
    pairs = make_pairs(1)
    config = TrainConfig(loss=dataclasses.replace(PIXELS, views="target"), data=SMALL, log_every=1)
    only_target, all_views = make_trainer(config, pairs), make_trainer(dataclasses.replace(config, loss=PIXELS), pairs)
    only_target.train_until(1)
    all_views.train_until(1)
    assert only_target.history[0].loss != all_views.history[0].loss


def test_a_prompt_without_embedding_is_refused() -> None:
    start = start_from_preset(TINY, prompts=["another"], seed=0)
    dataset = PairDataset(make_pairs(1), SMALL)
    with pytest.raises(InputError, match=r'"remove degradation".*"another"'):
        DifixTrainer(start.network, start.text_embeddings, dataset, TrainConfig(loss=PIXELS, data=SMALL))


def test_run_writes_metrics_checkpoints_and_a_model_for_the_pipeline(tmp_path: Path) -> None:
    from difix_model.pipeline import DifixPipeline

    config = dataclasses.replace(
        BUSY, max_steps=6, log_every=2, checkpoint_every=2, validate_every=3, keep_checkpoints=2, ema_decay=0.0
    )
    pairs = make_pairs(4)
    folder = RunFolder(tmp_path / "run")
    assert folder.open(resume=False) is None
    run = TrainingRun(make_trainer(config, pairs), folder, validation=PairDataset(pairs, config.data), stop_at=4)
    while not run.done:
        run.advance()
    assert folder.checkpoint_steps() == [2, 4]
    assert not folder.model.exists()

    with pytest.raises(InputError, match="--resume"):
        folder.open(resume=False)
    latest = folder.open(resume=True)
    assert latest is not None
    assert latest == folder.checkpoint(4)
    trainer = DifixTrainer.load(latest, PairDataset(pairs, config.data), config)
    run = TrainingRun(trainer, folder, validation=PairDataset(pairs, config.data))
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
    assert list(folder.path.rglob("*partial*")) == []

    pipe = DifixPipeline.from_pretrained(folder.model)
    fixed = pipe(pairs[0].image, pairs[0].references[0])
    assert isinstance(fixed, np.ndarray)
    assert fixed.shape == (32, 32, 3)


def test_a_saved_model_tells_its_timestep_and_whether_it_was_shown_references(tmp_path: Path) -> None:
    for num_references, timestep in ((1, 50), (0, 199)):
        config = TrainConfig(data=SMALL, loss=PIXELS, timestep=timestep)
        make_trainer(config, make_pairs(2, num_references=(num_references,))).save_model(tmp_path / "model")
        metadata = json.loads((tmp_path / "model" / "config.json").read_text())["metadata"]
        assert metadata["timestep"] == timestep
        assert metadata["uses_reference"] == (num_references > 0)


def test_recomputed_activations_give_the_same_gradients() -> None:
    """Blocks of the UNet and of the decoder run twice then, and every gradient is the same."""
    config = TrainConfig(trainable="all", loss=PIXELS, data=SMALL)
    gradients, calls = [], []
    for recompute in (False, True):
        trainer = make_trainer(dataclasses.replace(config, gradient_checkpointing=recompute), make_pairs(1))
        blocks = {"unet": "unet.down_blocks.0.resnets.0", "decoder": "vae.decoder.up_blocks.0.resnets.0"}
        counts = dict.fromkeys(blocks, 0)
        for name, place in blocks.items():

            def count(*_, name: str = name, counts: dict[str, int] = counts) -> None:
                counts[name] += 1

            # Counted at the beginning: recomputation may stop before a module ends.
            trainer.network.get_submodule(place).register_forward_pre_hook(count)
        trainer.train_until(1)
        gradients.append({name: parameter.grad for name, parameter in trainer.trained.items()})
        calls.append(counts)
    assert calls[0] == {"unet": 1, "decoder": 1}
    assert calls[1] == {"unet": 2, "decoder": 2}
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_pairs_with_references_for_a_network_that_cannot_see_them_are_told(caplog: pytest.LogCaptureFixture) -> None:
    config = TrainConfig(loss=PIXELS, data=SMALL)
    for reference_attention, num_references, told in ((False, 1, True), (False, 0, False), (True, 1, False)):
        preset = Preset(network=lambda on=reference_attention: tiny_config(reference_attention=on), description="tiny")
        start = start_from_preset(preset, prompts=[PROMPT], seed=3)
        dataset = PairDataset(make_pairs(1, num_references=(num_references,)), SMALL)
        caplog.clear()
        DifixTrainer(start.network, start.text_embeddings, dataset, config)
        assert ("--reference-attention True" in caplog.text) == told
