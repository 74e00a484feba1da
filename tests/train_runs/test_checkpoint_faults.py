"""Whatever happens while a checkpoint is written, a valid one is found afterwards."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from support.faults import Killed, struck
from train_runs import InputError, checkpoints, latest_valid, read_checkpoint, recover, write_checkpoint
from train_runs.run_folder import checkpoint_name


def _tensors(value: int) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((50, 3), float(value))}


def _write(folder: Path, step: int, value: int) -> Path:
    path = folder / checkpoint_name(step)

    def write_more(inside: Path) -> None:
        (inside / "model").mkdir()
        (inside / "model" / "more.txt").write_text(str(value))

    write_checkpoint(path, {"step": step, "value": value}, _tensors(value), write_more=write_more)
    return path


def _found(folder: Path, *, recovered: bool) -> tuple[int, int]:
    """Step and value of the newest valid checkpoint; all its files must be of one writing."""
    newest = (recover if recovered else latest_valid)(folder)
    assert newest is not None
    checkpoint = read_checkpoint(newest)
    step, value = checkpoint.values["step"], checkpoint.values["value"]
    assert torch.equal(checkpoint.tensors["weights"], _tensors(value)["weights"])
    assert (newest / "model" / "more.txt").read_text() == str(value)
    return step, value


@pytest.fixture(scope="module", params=[1, 2], ids=["replacing", "adding"])
def step(request: pytest.FixtureRequest) -> int:
    """Of the checkpoint that is being written when it happens; the one before is of step 1."""
    return request.param


def _moments(tmp_path: Path, step: int) -> int:
    """The number of file operations of an undisturbed writing."""
    folder = tmp_path / "counted"
    _write(folder, 1, 10)
    with struck(folder, -1, None) as striker:
        _write(folder, step, 20)
    assert _found(folder, recovered=False) == (step, 20)
    return striker.seen


def test_a_kill_at_any_file_operation_leaves_a_valid_checkpoint(tmp_path: Path, step: int):
    moments = _moments(tmp_path, step)
    assert moments >= 9
    outcomes = set()
    for moment in range(1, moments + 1):
        folder = tmp_path / f"killed_{moment}"
        _write(folder, 1, 10)
        with struck(folder, moment, Killed()), pytest.raises(Killed):
            _write(folder, step, 20)
        found = _found(folder, recovered=False)
        assert found in {(1, 10), (step, 20)}
        assert _found(folder, recovered=True) == found
        assert not list(folder.glob(".*"))
        outcomes.add(found)
        _write(folder, step, 30)
        assert _found(folder, recovered=False) == (step, 30)
    assert outcomes == {(1, 10), (step, 20)}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from_then_on"])
def test_a_full_disk_at_any_file_operation_is_one_sentence(tmp_path: Path, step: int, lasting: bool):
    num_refused = 0
    for moment in range(1, _moments(tmp_path, step) + 1):
        folder = tmp_path / f"full_{moment}"
        _write(folder, 1, 10)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with struck(folder, moment, full, lasting=lasting):
            message = _refusal(folder, step)
        if message is not None:
            assert "cannot write the checkpoint" in message
            assert os.strerror(errno.ENOSPC) in message
            num_refused += 1
        assert _found(folder, recovered=False) in {(1, 10), (step, 20)}
        assert _found(folder, recovered=True) in {(1, 10), (step, 20)}
    assert num_refused >= 6


def _refusal(folder: Path, step: int) -> str | None:
    try:
        _write(folder, step, 20)
    except InputError as error:
        return str(error)
    return None


def test_a_file_that_grows_beyond_its_limit_is_one_sentence_and_the_old_one_stays(tmp_path: Path, step: int):
    """The operating system's own refusal in the middle of a file, as a full disk or a quota gives it."""
    _write(tmp_path, 1, 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(InputError, match="cannot write the checkpoint"):
            _write(tmp_path, step, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]
    assert _found(tmp_path, recovered=False) == (1, 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path):
    _write(tmp_path, 1, 10)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot write the checkpoint"):
            _write(tmp_path, 2, 20)
        assert _found(tmp_path, recovered=False) == (1, 10)
    finally:
        tmp_path.chmod(0o700)


def test_every_kind_of_damage_to_the_newest_leads_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rng = np.random.default_rng(0)
    names = (checkpoints.STATE_FILE, checkpoints.TENSORS_FILE, checkpoints.CHECKSUMS_FILE, "model/more.txt")
    for number, name in enumerate(names):
        for damage in ("missing", "empty", "cut", "bit", "high bit", "zeros"):
            folder = tmp_path / f"{number}_{damage}"
            _write(folder, 1, 10)
            path = _write(folder, 2, 20) / name
            content = bytearray(path.read_bytes())
            position = int(rng.integers(len(content)))
            if damage in ("bit", "high bit"):
                content[position] ^= 0x80 if damage == "high bit" else 1 << int(rng.integers(7))
            damaged = {"empty": b"", "cut": content[:position], "zeros": bytes(len(content))}
            path.write_bytes(damaged.get(damage, content))
            if damage == "missing":
                path.unlink()
            caplog.clear()
            assert _found(folder, recovered=True) == (1, 10), (name, damage)
            assert "step_000002" in caplog.text
            assert (folder / "damaged_step_000002").is_dir()


@pytest.mark.parametrize(("keep", "left"), [(1, [30, 40]), (2, [20, 30, 40]), (9, [10, 20, 30, 40])])
def test_older_checkpoints_are_removed_but_none_newer_or_unlike(tmp_path: Path, keep: int, left: list[int]):
    """A damaged checkpoint of a higher step must not make the one that was just written the one too many."""
    for number in (10, 20, 30, 40):
        _write(tmp_path, number, 1)
    (tmp_path / "step_000040" / checkpoints.STATE_FILE).unlink()
    (tmp_path / "notes").mkdir()
    checkpoints.remove_older(tmp_path / "step_000030", keep)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["notes", *map(checkpoint_name, left)]


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", "something else")
        path = _write(tmp_path, 1, 1)
    with pytest.raises(InputError, match="has the format"):
        read_checkpoint(path)


def test_tensors_come_back_as_they_were_also_from_shared_memory(tmp_path: Path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": base, "again": base, "row": base[1], "turned": base.T, "half": base.bfloat16(),
        "scalar": torch.tensor(3.0), "bytes": torch.Generator().get_state(), "nothing": torch.zeros(0, 3),
    }  # fmt: skip
    write_checkpoint(tmp_path / "step_000001", {"step": 1}, tensors)
    found = read_checkpoint(tmp_path / "step_000001").tensors
    assert found.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in found.items())
    assert all(value.dtype == tensors[name].dtype for name, value in found.items())


def test_numbers_that_json_cannot_hold_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_checkpoint(tmp_path / "step_000001", {"loss": float("nan")}, {})
    assert list(tmp_path.iterdir()) == []


WRITER = """
    import os, random, sys, time
    from pathlib import Path
    import torch
    from train_runs import latest_valid, read_checkpoint, recover, write_checkpoint

    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    write_checkpoint(folder / "step_000001", {"step": 1, "value": 0}, {"weights": torch.zeros(9, 3)})
    for run in range(12):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.write(writer, b"x")
            value = 0
            while True:
                value += 1
                step = 1 + value % 2
                tensors = {"weights": torch.full((20_000, 3), float(value))}
                write_checkpoint(folder / f"step_{step:06d}", {"step": step, "value": value}, tensors)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        time.sleep(rng.random() * 0.06)
        os.kill(child, 9)
        os.waitpid(child, 0)
        seen = latest_valid(folder)
        found = recover(folder)
        assert seen is not None and found is not None, list(folder.iterdir())
        checkpoint = read_checkpoint(found)
        weights, value = checkpoint.tensors["weights"], checkpoint.values["value"]
        assert float(weights.min()) == float(weights.max()) == value
        print(run, found.name, "hidden" if seen.name.startswith(".") else "named", len(list(folder.iterdir())))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills processes")
def test_sigkill_at_random_moments_leaves_a_valid_checkpoint(tmp_path: Path):
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(WRITER))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder), "7"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 12
    assert signal.SIGKILL == 9
