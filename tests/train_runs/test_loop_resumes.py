"""Training goes on bit for bit where it was left, whatever the task is made of."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from support.line_task import LineModelTask, LineTask
from train_runs import (
    InputError,
    Loop,
    LoopConfig,
    ModelTask,
    NonFiniteLossError,
    OptimizerConfig,
    RunFolder,
    Task,
    read_checkpoint,
)

CONFIG = LoopConfig(max_steps=8, gradient_accumulation=2, ema_decay=0.9, log_every=3, checkpoint_every=4)
COSINE = OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=2)


def _assert_same(a: LineTask, b: LineTask) -> None:
    expected = b.weights()
    for name, value in a.weights().items():
        assert torch.equal(value, expected[name]), name


def _averages(loop: Loop) -> dict[str, torch.Tensor]:
    assert loop.ema is not None
    return loop.ema.averages


def test_the_tasks_of_the_tests_are_tasks():
    assert isinstance(LineTask(), Task)
    assert not isinstance(LineTask(), ModelTask)
    assert isinstance(LineModelTask(), ModelTask)


@pytest.mark.parametrize("make", [LineTask, LineModelTask])
@pytest.mark.parametrize("options", [{"dropout": 0.4}, {"optimizers": ("a", "b"), "config": COSINE}])
def test_2n_steps_are_n_save_load_and_n_more(tmp_path: Path, make: type[LineTask], options: dict):
    straight, first, second = make(**options), make(**options), make(**options)
    whole = Loop(straight, tmp_path / "straight", CONFIG)
    whole.train_until(8)
    begun = Loop(first, tmp_path / "halves", CONFIG)
    begun.train_until(1)
    begun.train_until(4)
    torch.rand(3)  # What the program does besides has no say.
    resumed = Loop(second, tmp_path / "halves", CONFIG)
    assert resumed.step == 4
    resumed.train_until(100)
    assert resumed.done
    _assert_same(second, straight)
    for name, average in _averages(resumed).items():
        assert torch.equal(average, _averages(whole)[name]), name
        assert not torch.equal(average, whole.parameters[name]), name
    assert begun.history + resumed.history == whole.history
    steps = [(line["kind"], line["step"]) for line in RunFolder(tmp_path / "halves").read_metrics()]
    assert steps == [("train", 3), ("train", 6)]
    assert whole.history[0].terms.keys() == {"l2", "l1"}
    assert 0 < whole.waiting_fraction < 1


def test_a_finished_run_has_a_model_with_the_averages_and_checkpoints_hold_no_weights_twice(tmp_path: Path):
    task = LineModelTask()
    loop = Loop(task, tmp_path, CONFIG)
    loop.train_until(7)
    assert not RunFolder(tmp_path).model.exists()
    loop.train_until(8)
    written = LineModelTask()
    written.read_model(RunFolder(tmp_path).model)
    with loop.averaged():
        _assert_same(written, task)
    assert json.loads((tmp_path / "model" / "step.json").read_text()) == {"step": 8}
    names = {name.split("/")[0] for name in read_checkpoint(RunFolder(tmp_path).checkpoint(8)).tensors}
    assert names == {"parameters", "optimizer", "task", "generator"}
    plain = dataclasses.replace(CONFIG, ema_decay=0.0)
    Loop(LineModelTask(), tmp_path / "plain", plain).train_until(8)
    names = {name.split("/")[0] for name in read_checkpoint(tmp_path / "plain/checkpoints/step_000008").tensors}
    assert names == {"optimizer", "task", "generator"}
    (tmp_path / "model" / "step.json").write_text('{"step": 4}')  # Killed before the model was written.
    (tmp_path / "model" / "weights.safetensors").unlink()
    Loop(LineModelTask(), tmp_path, CONFIG)
    written.read_model(RunFolder(tmp_path).model)


def test_a_prolonged_run_goes_on_and_another_one_is_refused(tmp_path: Path):
    Loop(LineTask(), tmp_path, CONFIG).train_until(8)
    longer = dataclasses.replace(CONFIG, max_steps=10, checkpoint_every=1, keep_checkpoints=3)
    loop = Loop(LineTask(), tmp_path, longer)
    loop.train_until(10)
    assert RunFolder(tmp_path).checkpoint_steps() == [8, 9, 10]
    with pytest.raises(InputError, match="gradient_accumulation was 2, now 1"):
        Loop(LineTask(), tmp_path, dataclasses.replace(CONFIG, gradient_accumulation=1))
    with pytest.raises(InputError, match="batch_size was 4"):
        Loop(LineTask(3), tmp_path, longer)


def test_nested_settings_are_compared_by_their_own_rules(tmp_path: Path):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        loop: LoopConfig
        optimizer: OptimizerConfig

    settings = Settings(loop=CONFIG, optimizer=OptimizerConfig())
    Loop(LineTask(), tmp_path, CONFIG, settings=settings).train_until(4)
    assert json.loads((tmp_path / "config.json").read_text())["settings"]["optimizer"]["algorithm"] == "adamw"
    slower = dataclasses.replace(settings, optimizer=OptimizerConfig(learning_rate=1e-5))
    with pytest.raises(InputError, match=r"optimizer\.learning_rate was 0.0001, now 1e-05"):
        Loop(LineTask(), tmp_path, CONFIG, settings=slower)
    often = dataclasses.replace(CONFIG, log_every=1)
    assert Loop(LineTask(), tmp_path, often, settings=dataclasses.replace(settings, loop=often)).step == 4


def test_a_loss_that_is_not_finite_stops_before_the_step_and_is_written_down(tmp_path: Path):
    task = LineTask(2)
    loop = Loop(task, tmp_path, CONFIG)
    loop.train_until(3)
    before = task.weights()
    task.spoil = True
    with pytest.raises(NonFiniteLossError, match="the loss became nan at step 4 on the samples nan, nan") as caught:
        loop.train_until(4)
    assert caught.value.ids == ("nan", "nan")
    assert loop.step == 3
    assert torch.equal(task.weights()["first.weight"], before["first.weight"])
    assert json.loads((tmp_path / "nonfinite_000004.json").read_text())["step"] == 4


def test_without_a_folder_nothing_is_written_but_what_is_asked_for(tmp_path: Path):
    task = LineTask()
    loop = Loop(task, None, CONFIG)
    loop.train_until(8)
    with pytest.raises(ValueError, match="no run folder"):
        loop.save()
    assert list(tmp_path.iterdir()) == []
    loop.write_checkpoint(tmp_path / "anywhere")
    restored = LineTask()
    assert Loop(restored, None, CONFIG, checkpoint=tmp_path / "anywhere").step == 8
    _assert_same(restored, task)


def test_what_was_loaded_is_not_written_again(tmp_path: Path):
    Loop(LineTask(), tmp_path, CONFIG).train_until(4)
    checkpoint = tmp_path / "checkpoints" / "step_000004"
    written = checkpoint.stat().st_ino
    loop = Loop(LineTask(), tmp_path, CONFIG)
    loop.save()
    assert checkpoint.stat().st_ino == written
    loop.train_until(5)
    loop.save()
    assert RunFolder(tmp_path).checkpoint_steps() == [4, 5]


def test_damage_leads_to_the_one_before_and_the_damaged_one_does_not_outlive_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    each = dataclasses.replace(CONFIG, checkpoint_every=1)
    Loop(LineTask(), tmp_path, each).train_until(3)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "step_000003" / "state.safetensors").write_bytes(b"damaged")
    frugal = dataclasses.replace(each, keep_checkpoints=1)
    loop = Loop(LineTask(), tmp_path, frugal)
    assert loop.step == 2
    assert "damaged_step_000003" in caplog.text
    assert RunFolder(tmp_path).checkpoint_steps() == [2]
    loop.train_until(3)
    assert RunFolder(tmp_path).checkpoint_steps() == [3]
    assert (checkpoints / "damaged_step_000003" / "state.safetensors").read_bytes() == b"damaged"
    (checkpoints / "step_000003" / "state.json").unlink()
    with pytest.raises(InputError, match="none of the checkpoints"):
        Loop(LineTask(), tmp_path, frugal)


def test_a_second_optimizer_clips_by_its_own_norm():
    """Of two optimizers each clips its own; of one, both layers have one norm."""
    config = OptimizerConfig(learning_rate=1e-2, max_grad_norm=1e-3)
    gradients = []
    for optimizers in (("a", "a"), ("a", "b")):
        task = LineTask(config=config, optimizers=optimizers)
        loop = Loop(task, None, LoopConfig(log_every=1))
        loop.train_until(1)
        norms = [
            torch.stack([value.grad.norm() for value in layer.parameters()]).norm()  # type: ignore[union-attr]
            for layer in (task.model.first, task.model.last)
        ]
        gradients.append(torch.stack(norms))
        assert loop.history[0].grad_norm > 0.1
    assert float(gradients[0].norm()) == pytest.approx(1e-3, rel=1e-2)
    assert gradients[1].tolist() == pytest.approx([1e-3, 1e-3], rel=1e-2)
