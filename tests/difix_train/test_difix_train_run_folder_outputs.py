"""What a run leaves behind: pictures, TensorBoard, the samples of a broken step, adapters; and after being killed."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix_model import DifixPipeline
from difix_model.formats.checkpoint import load_checkpoint
from difix_model.pairs import PairRecord, write_pairs
from difix_train import (
    DataConfig,
    InputError,
    LossConfig,
    NonFiniteLossError,
    RunSettings,
    TrainConfig,
    TrainingRun,
    open_run,
)
from difix_train.state import newest_whole, read_progress
from support import train_in_processes

PROMPT = "remove degradation"
SIDE = 32
QUICK = TrainConfig(
    max_steps=4,
    batch_size=2,
    trainable="all",
    log_every=2,
    checkpoint_every=2,
    validate_every=2,
    validation_samples=2,
    grid_samples=2,
    loss=LossConfig(lpips_weight=0.0, gram_weight=0.0),
    data=DataConfig(height=SIDE, width=SIDE),
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    records = []
    for index in range(6):
        paths = {name: folder / f"{name}_{index}.png" for name in ("image", "target", "reference")}
        for path in paths.values():
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
        records.append(
            PairRecord(
                id=f"pair_{index}",
                split="test" if index > 3 else "train",
                image=paths["image"],
                target_image=paths["target"],
                ref_image=paths["reference"],
                prompt=PROMPT,
            )
        )
    write_pairs(folder / "pairs.json", records)
    return folder / "pairs.json"


def _settings(pairs: Path, out: Path, **changes) -> RunSettings:
    return dataclasses.replace(RunSettings(pairs=pairs, out=out, preset="tiny", config=QUICK), **changes)


def _advance_to(run: TrainingRun, step: int) -> None:
    while run.trainer.step < step:
        run.advance(step - run.trainer.step)


def test_pictures_are_written_at_the_first_every_nth_and_the_last_step(pairs: Path, tmp_path: Path) -> None:
    run = open_run(_settings(pairs, tmp_path))
    while not run.done:
        run.advance()
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "step_000001.png",
        "step_000002.png",
        "step_000004.png",
    ]
    picture = np.asarray(Image.open(tmp_path / "images" / "step_000004.png"))
    # Two rows of render, fixed, target and reference: the outer columns are the files themselves.
    first = np.asarray(Image.open(pairs.parent / "image_4.png"))
    reference = np.asarray(Image.open(pairs.parent / "reference_4.png"))
    assert picture.shape[0] > 2 * SIDE
    assert picture.shape[1] > 4 * SIDE
    np.testing.assert_array_equal(picture[:SIDE, :SIDE], first)
    np.testing.assert_array_equal(picture[:SIDE, -SIDE:], reference)
    assert 0 < run.share_waiting_for_data < 1


def test_tensorboard_holds_the_curves_and_pictures(pairs: Path, tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = open_run(_settings(pairs, tmp_path, trackers=("tensorboard",)))
    while not run.done:
        run.advance()
    run.close()
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
    shown = {event.step: event.value for event in events.Scalars("train/loss")}
    assert shown == pytest.approx(written)
    assert [event.step for event in events.Scalars("test/right_psnr")] == [1, 2, 4]
    assert [event.step for event in events.Images("test/examples")] == [1, 2, 4]


def test_weights_and_biases_works_without_a_network(pairs: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = open_run(_settings(pairs, tmp_path, trackers=("wandb",)))
    run.advance()
    run.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_that_is_not_installed_is_told(pairs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="--extra wandb"):
        open_run(_settings(pairs, tmp_path, trackers=("wandb",)))


def test_the_samples_of_a_broken_step_are_written_down(pairs: Path, tmp_path: Path) -> None:
    run = open_run(_settings(pairs, tmp_path))
    _advance_to(run, 2)
    with torch.no_grad():
        next(iter(run.trainer.trained.values())).fill_(float("nan"))
    with pytest.raises(NonFiniteLossError):
        run.advance()
    values = json.loads((tmp_path / "nonfinite_000003.json").read_text())
    assert values["step"] == 3
    assert len(values["ids"]) == QUICK.batch_size
    assert set(values["ids"]) <= {f"pair_{index}" for index in range(4)}


def test_adapters_are_trained_alone_saved_resumed_and_merged_for_use(pairs: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, trainable="lora")
    settings = _settings(pairs, tmp_path / "whole", unet_lora_rank=2, config=config)
    run = open_run(settings)
    before = {name: value.clone() for name, value in run.trainer.network.state_dict().items()}
    assert any(name.startswith("unet.") for name in run.trainer.trained)
    while not run.done:
        run.advance()
    after = run.trainer.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".lora_" in name or "skip_conv" in name for name in moved)
    halves = dataclasses.replace(settings, out=tmp_path / "halves")
    _advance_to(open_run(dataclasses.replace(halves, stop_at=2)), 2)
    second = open_run(dataclasses.replace(halves, resume=True))
    while not second.done:
        second.advance()
    for name, value in second.trainer.network.state_dict().items():
        assert torch.equal(value, after[name]), name
    assert load_checkpoint(tmp_path / "whole" / "model").network.config.unet.lora_rank == 2
    assert DifixPipeline.from_pretrained(tmp_path / "whole" / "model").network.config.unet.lora_rank == 0


def test_adapters_and_what_is_trained_must_agree(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--trainable lora"):
        _settings(pairs, tmp_path, unet_lora_rank=2).check()


def test_no_global_generator_has_a_say(pairs: Path, tmp_path: Path) -> None:
    """Its own generators are all that a checkpoint needs to hold."""
    results = []
    for seed in (0, 1):
        run = open_run(_settings(pairs, tmp_path / f"{seed}"))
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        _advance_to(run, 2)
        results.append({name: value.clone() for name, value in run.trainer.trained.items()})
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


@pytest.mark.parametrize("broken_call", ["rename", "fsync", "write_text", "open"])
def test_a_save_that_breaks_off_leaves_the_one_before(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_call: str
) -> None:
    run = open_run(_settings(pairs, tmp_path))
    _advance_to(run, 2)
    assert run.folder.checkpoint_steps() == [2]
    run.trainer.train_until(3)

    def break_off(*_, **__) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if broken_call == "fsync":
            patch.setattr(os, "fsync", break_off)
        else:
            patch.setattr(Path, broken_call, break_off)
        with pytest.raises((InputError, OSError)):
            run.save()
    newest = newest_whole([run.folder.checkpoint(step) for step in run.folder.checkpoint_steps()])
    assert read_progress(newest)["step"] == 2


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_from_its_last_whole_checkpoint(pairs: Path, tmp_path: Path) -> None:
    """Kill a run that saves after every step at ten moments; let it end, and compare with one that was left alone."""
    config = {"max_steps": 60, "checkpoint_every": 1}
    command = [sys.executable, train_in_processes.__file__.replace("train_in_processes", "run_tiny"), str(pairs)]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    subprocess.run([*command, str(alone), json.dumps(config)], check=True)
    rng = random.Random(0)
    steps = []
    for _ in range(10):
        process = subprocess.Popen([*command, str(killed), json.dumps(config)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()  # The run has begun.
        steps.append(int(line))
        time.sleep(rng.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert steps == sorted(steps)
    assert steps[-1] > 0
    subprocess.run([*command, str(killed), json.dumps(config)], check=True, stdout=subprocess.DEVNULL)
    expected = load_checkpoint(alone / "model").network.state_dict()
    for name, value in load_checkpoint(killed / "model").network.state_dict().items():
        assert torch.equal(value, expected[name]), name
