"""What a run leaves behind: pictures, TensorBoard, the samples of a broken step, adapters; and after being killed."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix_model import DifixPipeline, load_checkpoint
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
from difix_train import run as run_module
from difix_train.losses.lpips import Lpips
from difix_train.losses.vgg import LAYER_INDICES, VggFeatures
from support import train_in_processes
from support.noise_pairs import write_noise_pairs
from train_runs import RunFolder
from train_runs.loop import model_step

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
    return write_noise_pairs(tmp_path_factory.mktemp("pairs"), side=SIDE, prompt=PROMPT, num_train=4, num_test=2)


def _settings(pairs: Path, out: Path, **changes) -> RunSettings:
    return dataclasses.replace(RunSettings(pairs=pairs, out=out, preset="tiny", config=QUICK), **changes)


def _advance_to(run: TrainingRun, step: int) -> None:
    while run.step < step:
        run.advance(step - run.step)


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
    reference = np.asarray(Image.open(pairs.parent / "ref_image_4.png"))
    assert picture.shape[0] > 2 * SIDE
    assert picture.shape[1] > 4 * SIDE
    np.testing.assert_array_equal(picture[:SIDE, :SIDE], first)
    np.testing.assert_array_equal(picture[:SIDE, -SIDE:], reference)
    assert 0 < run.loop.waiting_fraction < 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    fractions = [line["waiting_fraction"] for line in lines if line["kind"] == "train"]
    assert len(fractions) == 2
    assert all(0 < fraction < 1 for fraction in fractions)


class _Stub(Lpips):
    """Stands for LPIPS with VGG16, which is not available here."""

    def forward(self, x_pred: torch.Tensor, x_clean: torch.Tensor) -> torch.Tensor:
        return (x_pred - x_clean).abs().mean(dim=(1, 2, 3))


@pytest.mark.parametrize("available", [False, True])
def test_validation_measures_lpips_wherever_its_backbone_is_available(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: bool
) -> None:
    """Also where the loss does without it."""
    config = dataclasses.replace(QUICK, loss=dataclasses.replace(QUICK.loss, vgg16=tmp_path / "absent.pth"))
    if available:
        heads = [torch.ones(1)] * len(LAYER_INDICES)
        monkeypatch.setattr(run_module, "load_vgg16", lambda path: VggFeatures((1,)))
        monkeypatch.setattr(Lpips, "from_heads_file", lambda vgg: _Stub(vgg, heads))
    run = open_run(_settings(pairs, tmp_path / "out", config=config))
    _advance_to(run, 2)
    assert run.latest_evaluation is not None
    scores = run.latest_evaluation.after["right"]
    assert (scores.lpips is not None) == available
    assert set(run.loop.history[0].terms) == {"l2"}
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["after"]["right"]["lpips"] == scores.lpips


def test_adapters_are_trained_alone_saved_resumed_and_merged_for_use(pairs: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, trainable="lora")
    settings = _settings(pairs, tmp_path / "whole", unet_lora_rank=2, config=config)
    run = open_run(settings)
    before = {name: value.clone() for name, value in run.task.network.state_dict().items()}
    assert any(name.startswith("unet.") for name in run.task.trained)
    while not run.done:
        run.advance()
    after = run.task.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".lora_" in name or "skip_conv" in name for name in moved)
    halves = dataclasses.replace(settings, out=tmp_path / "halves")
    _advance_to(open_run(dataclasses.replace(halves, stop_at=2)), 2)
    second = open_run(dataclasses.replace(halves, resume=True))
    while not second.done:
        second.advance()
    for name, value in second.task.network.state_dict().items():
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
        results.append({name: value.clone() for name, value in run.task.trained.items()})
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_a_model_of_an_earlier_step_is_replaced_when_a_finished_run_is_opened(pairs: Path, tmp_path: Path) -> None:
    """A run that was prolonged, and killed between its last checkpoint and the network."""
    run = open_run(_settings(pairs, tmp_path, config=dataclasses.replace(QUICK, max_steps=2)))
    _advance_to(run, 2)
    assert model_step(run.folder) == 2
    shutil.copytree(run.folder.model, tmp_path / "earlier")
    _advance_to(open_run(_settings(pairs, tmp_path, resume=True)), 4)
    shutil.rmtree(run.folder.model)
    (tmp_path / "earlier").rename(run.folder.model)
    final = open_run(_settings(pairs, tmp_path, resume=True))
    assert final.done
    assert model_step(final.folder) == 4
    found = load_checkpoint(final.folder.model).network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in final.task.network.state_dict().items())


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


def test_the_samples_of_a_broken_step_are_written_down(pairs: Path, tmp_path: Path) -> None:
    run = open_run(_settings(pairs, tmp_path))
    _advance_to(run, 2)
    with torch.no_grad():
        next(iter(run.task.trained.values())).fill_(float("nan"))
    with pytest.raises(NonFiniteLossError):
        run.advance()
    values = json.loads((tmp_path / "nonfinite_000003.json").read_text())
    assert values["step"] == 3
    assert len(values["ids"]) == QUICK.batch_size
    assert set(values["ids"]) <= {f"pair_{index}" for index in range(4)}


NURSERY = """
import json, os, runpy, sys
import torch, difix_train.run
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        sys.argv = json.loads(line)
        print(os.getpid(), flush=True)
        runpy.run_path(sys.argv[0], run_name="__main__")
        os._exit(0)
    print("ended by", os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [10])
def test_a_run_killed_at_any_moment_goes_on_from_its_last_valid_checkpoint(
    pairs: Path, tmp_path: Path, num_kills: int
) -> None:
    """Kill a run that saves after every step at random moments; let it end, and compare with one left alone."""
    # The changes that the program makes to its settings, and the same settings for runs in this process.
    changes = {"max_steps": 8 * num_kills, "checkpoint_every": 1}
    config = dataclasses.replace(QUICK, trainable="released", log_every=1, validate_every=0, **changes)
    alone, killed = _settings(pairs, tmp_path / "alone", config=config), tmp_path / "killed"
    folder, rng, on_disk = RunFolder(killed), random.Random(0), 0
    command = [train_in_processes.__file__.replace("train_in_processes", "run_tiny"), *map(str, (pairs, killed))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-c", NURSERY], **pipes) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for _ in range(num_kills):
            nursery.stdin.write(json.dumps([*command, json.dumps(changes)]) + "\n")
            pid, begun_at = (int(nursery.stdout.readline()) for _ in range(2))
            try:
                assert begun_at >= on_disk, "a checkpoint that was on the disk is lost"
                deadline = time.monotonic() + 60
                while max(folder.checkpoint_steps(), default=0) == begun_at and time.monotonic() < deadline:
                    time.sleep(0.002)
                time.sleep(rng.uniform(0.0, 0.05))
            finally:
                os.kill(pid, signal.SIGKILL)
            assert nursery.stdout.readline() == "ended by 9\n"
            on_disk = folder.checkpoint_steps()[-1]
    assert 0 < on_disk < changes["max_steps"], "no kill fell into the training"
    last = open_run(dataclasses.replace(alone, out=killed, resume=True))
    assert last.step >= on_disk
    for run in (last, open_run(alone)):
        while not run.done:
            run.advance()
    expected = load_checkpoint(alone.out / "model").network.state_dict()
    for name, value in load_checkpoint(killed / "model").network.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not list(killed.rglob("*.tmp"))
