import hashlib
import json
from pathlib import Path

import pytest
import torch

from splat_recon import InputError, checkpoint
from train_runs.checkpoints import CHECKSUMS_FILE, STATE_FILE, TENSORS_FILE
from train_runs.run_folder import checkpoint_name

TENSORS = {"gaussians.means": torch.arange(6.0).reshape(2, 3), "generator.views": torch.arange(5, dtype=torch.uint8)}


def _write(folder: Path, step: int) -> Path:
    path = folder / checkpoint_name(step)
    checkpoint.write_checkpoint(path, {"step": step, "loss_sum": 0.1 + 0.2}, TENSORS)
    return path


def test_a_checkpoint_comes_back_exactly_and_leaves_no_other_files(tmp_path):
    path = _write(tmp_path, 7)
    state, tensors = checkpoint.read_checkpoint(path)
    assert state["loss_sum"] == 0.1 + 0.2
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_000007"]


def test_writing_again_replaces(tmp_path):
    path = _write(tmp_path, 7)
    checkpoint.write_checkpoint(path, {"step": 8}, TENSORS)
    assert checkpoint.read_checkpoint(path)[0]["step"] == 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_000007"]


@pytest.mark.parametrize("name", [STATE_FILE, TENSORS_FILE, CHECKSUMS_FILE])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_any_damage_is_found(tmp_path, name, damage):
    path = _write(tmp_path, 1)
    content = (path / name).read_bytes()
    if damage == "truncate":
        (path / name).write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        middle = len(content) // 2
        (path / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        (path / name).unlink()
    with pytest.raises(InputError, match="step_000001"):
        checkpoint.read_checkpoint(path)


def test_the_newest_valid_checkpoint_is_found_and_damaged_ones_are_named(tmp_path, caplog):
    for step in (1, 900, 1000, 1_000_000):
        _write(tmp_path, step)
    (tmp_path / ".step_2000000.1.tmp").mkdir()
    (tmp_path / "step_3000000").mkdir()
    (tmp_path / "step_1000000" / TENSORS_FILE).write_bytes(b"")
    newest = checkpoint.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step_001000"
    assert "step_1000000" in caplog.text
    assert "step_3000000" in caplog.text


@pytest.mark.parametrize(("keep", "left"), [(1, [30, 40]), (2, [20, 30, 40]), (9, [10, 20, 30, 40])])
def test_older_checkpoints_are_removed_but_none_newer_or_unlike(tmp_path, keep, left):
    """A damaged checkpoint of a higher step must not make the one that was just written the one too many."""
    for step in (10, 20, 30, 40):
        _write(tmp_path, step)
    (tmp_path / "step_000040" / STATE_FILE).unlink()
    (tmp_path / "notes").mkdir()
    checkpoint.remove_older_checkpoints(tmp_path / "step_000030", keep)
    names = [checkpoint_name(step) for step in left]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["notes", *names]


def test_without_any_checkpoint_there_is_none(tmp_path):
    assert checkpoint.newest_checkpoint(tmp_path) is None
    assert checkpoint.newest_checkpoint(tmp_path / "missing") is None


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        checkpoint.write_checkpoint(tmp_path / "file" / "step_000001", {}, TENSORS)


def test_another_format_is_refused(tmp_path):
    path = _write(tmp_path, 1)
    state = json.loads((path / STATE_FILE).read_text())
    state["format"] = "something else"
    (path / STATE_FILE).write_text(json.dumps(state))
    sums = json.loads((path / CHECKSUMS_FILE).read_text())
    sums[STATE_FILE] = hashlib.sha256((path / STATE_FILE).read_bytes()).hexdigest()
    (path / CHECKSUMS_FILE).write_text(json.dumps(sums))
    with pytest.raises(InputError, match="has the format"):
        checkpoint.read_checkpoint(path)
