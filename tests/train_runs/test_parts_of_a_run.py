"""Moving averages, learning rates, optimizers, streams, run folders and trackers, each alone."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support.line_task import LineTask
from train_runs import (
    WARMUPS,
    BatchStream,
    Ema,
    InputError,
    Loop,
    LoopConfig,
    OptimizerConfig,
    ParameterGroup,
    RunFolder,
    TensorBoard,
    open_trackers,
)
from train_runs.errors import first_problems
from train_runs.optim import Optimizers


def test_warmups_have_their_published_values():
    assert [WARMUPS["ratio"](n) for n in (1, 90)] == pytest.approx([2 / 11, 0.91])
    assert [WARMUPS["power"](n) for n in (1, 2, 10, 100, 1000)] == pytest.approx(
        [0, 0.405, 0.822, 0.968, 0.994], abs=1e-3
    )
    assert WARMUPS["ratio_from_zero"](1) == 0
    assert WARMUPS["constant"](1) == 1


@pytest.mark.parametrize("name", list(WARMUPS))
def test_an_average_is_the_weighted_sum_of_what_it_saw(name):
    weight = nn.Parameter(torch.zeros(1))
    ema = Ema({"w": weight}, 0.9, WARMUPS[name])
    expected = 0.0
    for update in range(1, 30):
        with torch.no_grad():
            weight.fill_(float(update))
        ema.update({"w": weight}, update)
        decay = min(0.9, WARMUPS[name](update))
        expected = decay * expected + (1 - decay) * update
    assert float(ema.averages["w"]) == pytest.approx(expected, rel=1e-5)
    ema.swap({"w": weight})
    assert weight.item() == pytest.approx(expected, rel=1e-5)
    ema.swap({"w": weight})
    assert weight.item() == 29


def test_learning_rates_follow_their_schedule():
    constant = OptimizerConfig(learning_rate=1.0, warmup_steps=4)
    assert [constant.learning_rate_at(step, 10) for step in (0, 3, 4, 9)] == [0.25, 1.0, 1.0, 1.0]
    cosine = OptimizerConfig(learning_rate=1.0, schedule="cosine", warmup_steps=2, final_lr_fraction=0.1)
    assert [cosine.learning_rate_at(step, 12) for step in (2, 7, 12, 20)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    stepped = OptimizerConfig(learning_rate=1.0, schedule="step", decay_every=5, decay_factor=0.5)
    assert [stepped.learning_rate_at(step, 12) for step in (0, 4, 5, 10)] == [1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    "change", [{"learning_rate": 0.0}, {"beta1": 1.5}, {"decay_every": 0}, {"max_grad_norm": -1.0}]
)
def test_optimizers_that_make_no_sense_are_refused(change: dict):
    with pytest.raises(ValueError, match=next(iter(change))):
        OptimizerConfig(**change)


@pytest.mark.parametrize("change", [{"max_steps": 0}, {"seed": -1}, {"ema_decay": 1.0}])
def test_loops_that_make_no_sense_are_refused(change: dict):
    with pytest.raises(ValueError, match=next(iter(change))):
        LoopConfig(**change)


def test_groups_must_fit_together():
    weight = nn.Parameter(torch.zeros(1))
    group = ParameterGroup(parameters={"w": weight}, config=OptimizerConfig())
    with pytest.raises(ValueError, match="two groups: w"):
        Optimizers([group, group], 1)
    other = dataclasses.replace(group, parameters={"v": weight}, config=OptimizerConfig(algorithm="adam"))
    with pytest.raises(ValueError, match="one algorithm"):
        Optimizers([group, other], 1)
    with pytest.raises(ValueError, match="no parameter"):
        Optimizers([], 1)


def test_groups_have_their_own_rates_and_a_parameter_without_gradient_rests():
    fast, slow, resting = (nn.Parameter(torch.ones(1)) for _ in range(3))
    groups = [
        ParameterGroup(parameters={"fast": fast}, config=OptimizerConfig(learning_rate=1e-1, weight_decay=0.0)),
        ParameterGroup(
            name="slow",
            parameters={"slow": slow},
            config=OptimizerConfig(weight_decay=0.0),
            learning_rate=lambda n: 1e-3,
        ),
        ParameterGroup(name="resting", parameters={"resting": resting}, config=OptimizerConfig(), optimizer="other"),
    ]
    optimizers = Optimizers(groups, 10)
    assert optimizers.set_learning_rates(0) == 1e-1
    (fast + slow).sum().backward()
    assert [float(norm) for norm in optimizers.clip_gradients()] == pytest.approx([2**0.5])
    optimizers.step()
    assert [1 - value.item() for value in (fast, slow, resting)] == pytest.approx([1e-1, 1e-3, 0], abs=1e-6)
    assert {name.split("/")[0] for name in optimizers.tensors()} == {"fast", "slow"}


class _Count:
    """A sampler that counts."""

    def __init__(self) -> None:
        self.next_number = 0

    def next_batch(self) -> int:
        self.next_number += 1
        return self.next_number

    def state(self) -> dict:
        return {"next": self.next_number}

    def load_state(self, state: dict) -> None:
        self.next_number = state["next"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_goes_on_after_the_last_batch_handed_out(num_workers: int):
    def load(number: int) -> int:
        time.sleep(0.002 * (number % 3))  # Later ones are often ready first.
        return 10 * number

    stream = BatchStream(_Count(), load, num_workers)
    assert [stream.next() for _ in range(5)] == [10, 20, 30, 40, 50]
    state = stream.state()
    assert stream.next() == 60
    stream.load_state(state)
    assert [stream.next() for _ in range(3)] == [60, 70, 80]
    stream.close()


def test_a_run_folder_refuses_what_would_cost_a_run(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(InputError, match="no checkpoint to continue from"):
        folder.open(resume=True)
    folder.open(resume=False)
    Loop(LineTask(), folder, LoopConfig(max_steps=1)).train_until(1)
    with pytest.raises(InputError, match="already holds a run"):
        folder.open(resume=False)
    folder.open(resume=True)
    # Killed between two renames: the older copy is all there is.
    folder.checkpoint(1).rename(folder.checkpoints / ".step_000001.17.old")
    with pytest.raises(InputError, match="already holds a run"):
        folder.open(resume=False)
    assert Loop(LineTask(), folder, LoopConfig(max_steps=1)).done
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        RunFolder(tmp_path / "file" / "run").open(resume=False)


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.write_image("picture.png", np.zeros((2, 3, 3), dtype=np.uint8))
    with Image.open(folder.images / "picture.png") as picture:
        assert picture.size == (3, 2)
    for name in (
        ".config.json.19.tmp",
        "images/.a.png.3.tmp",
        "checkpoints/.step_000003.17.tmp/state.json",
        ".model.4.old/x",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{")
    for name in ("notes.tmp", ".hidden"):
        (tmp_path / name).write_text("mine")
    Loop(LineTask(), folder, LoopConfig())
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        ".hidden", "config.json", "notes.tmp", "picture.png",
    ]  # fmt: skip


def test_metrics_of_steps_that_are_made_again_are_dropped(tmp_path: Path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.append_metrics({"kind": "train", "step": step})
    with folder.metrics.open("a") as file:
        file.write('{"kind": "train", "st')  # Cut off by a kill.
    folder.truncate_metrics(2)
    assert [line["step"] for line in folder.read_metrics()] == [1, 2]
    assert len(folder.metrics.read_text().splitlines()) == 2


class _Notes:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, float]] = {}

    def numbers(self, values, step: int) -> None:
        self.seen[step] = dict(values)

    def picture(self, name: str, rgb: np.ndarray, step: int) -> None: ...

    def close(self) -> None: ...


def test_trackers_get_what_the_metrics_hold(tmp_path: Path):
    notes = _Notes()
    loop = Loop(LineTask(), tmp_path, LoopConfig(log_every=2), trackers=[notes])
    loop.train_until(4)
    written = {line["step"]: line["loss"] for line in RunFolder(tmp_path).read_metrics()}
    assert {step: values["train/loss"] for step, values in notes.seen.items()} == written
    assert set(written) == {2, 4}
    assert "train/loss_l1" in notes.seen[4]


def test_tensorboard_holds_curves_and_pictures(tmp_path: Path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tracker,) = open_trackers(["tensorboard", "tensorboard"], tmp_path, project="p", settings={})
    tracker.numbers({"train/loss": 0.5}, 3)
    tracker.picture("picture", np.zeros((4, 4, 3), dtype=np.uint8), 3)
    tracker.numbers({"train/loss": 0.25}, 30)
    tracker.close()
    # A run that is resumed leaves out what came after the step that it goes on from.
    tracker = TensorBoard(tmp_path, step=20)
    tracker.numbers({"train/loss": 1.5}, 25)
    tracker.close()
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5), (25, 1.5)]
    assert [event.step for event in events.Images("picture")] == [3]


def test_weights_and_biases_works_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tracker,) = open_trackers(["wandb"], tmp_path, project="p", settings={"a": 1})
    tracker.numbers({"train/loss": 0.5}, 1)
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize(("name", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard.writer")])
def test_a_tracker_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, module: str):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"train-runs\\[{name}\\]"):
        open_trackers([name], tmp_path, project="p", settings={})


def test_the_config_is_written_with_versions(tmp_path: Path):
    Loop(LineTask(), tmp_path, LoopConfig(max_steps=3))
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["settings"]["max_steps"] == 3
    assert {"python", "torch", "train-runs"} <= values["versions"].keys()


def test_many_problems_are_counted():
    assert first_problems(["a", "b"]) == "a; b"
    assert first_problems([str(n) for n in range(12)]).endswith("9; and 2 more")


def test_a_folder_with_the_settings_of_something_else_is_refused(tmp_path: Path):
    from train_runs import InputError, RunFolder

    (tmp_path / "config.json").write_text('{"num_views": 6}')
    with pytest.raises(InputError, match=r"config\.json is of something else, and would be replaced"):
        RunFolder(tmp_path).open(resume=False)
    assert (tmp_path / "config.json").read_text() == '{"num_views": 6}'
    (tmp_path / "config.json").unlink()
    RunFolder(tmp_path).open(resume=False)
    RunFolder(tmp_path).write_config({"a": 1})
    # A run that ended before its first checkpoint begins again.
    RunFolder(tmp_path).open(resume=False)


def test_a_link_in_a_run_folder_does_not_lead_out_of_it(tmp_path: Path):
    from train_runs import InputError, RunFolder

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"images leads to .*elsewhere, out of"):
        RunFolder(tmp_path / "run").open(resume=False)
