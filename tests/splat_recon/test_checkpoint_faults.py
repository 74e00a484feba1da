"""Whatever happens while a checkpoint is written, a whole one is found afterwards."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from splat_recon import checkpoint
from splat_recon.errors import InputError

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.fsync")
"""Moments at which the test can strike; all but the last are audit events of Python."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the library may catch it."""


class Striker:
    """Raises at the n-th file operation inside a folder."""

    def __init__(self) -> None:
        self.folder, self.left, self.lasting, self.seen = "", -1, False, 0
        self.error: BaseException | None = None

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.folder or event not in EVENTS:
            return
        if event != "os.fsync" and not str(arguments[0] if arguments else "").startswith(self.folder):
            return
        self.seen += 1
        self.left -= 1
        strikes = self.left == 0 or (self.lasting and self.left < 0 and event in ("open", "os.mkdir", "os.fsync"))
        if strikes and self.error is not None:
            raise self.error


STRIKER = Striker()
sys.addaudithook(STRIKER)


@contextmanager
def _struck(folder: Path, moment: int, error: BaseException | None, *, lasting: bool = False) -> Iterator[Striker]:
    STRIKER.folder, STRIKER.left, STRIKER.error = str(folder), moment, error
    STRIKER.lasting, STRIKER.seen = lasting, 0
    fsync = os.fsync

    def audited(descriptor: int) -> None:
        STRIKER("os.fsync", (str(descriptor),))
        fsync(descriptor)

    os.fsync = audited
    try:
        yield STRIKER
    finally:
        STRIKER.folder, os.fsync = "", fsync


def _tensors(value: int) -> dict[str, torch.Tensor]:
    return {"gaussians.means": torch.full((50, 3), float(value))}


def _write(folder: Path, step: int, value: int) -> Path:
    path = folder / checkpoint.checkpoint_name(step)
    checkpoint.write_checkpoint(path, {"step": step, "value": value}, _tensors(value))
    return path


def _found(folder: Path, *, recover: bool) -> tuple[int, int]:
    """Step and value of the newest whole checkpoint; state and tensors must be of one writing."""
    find = checkpoint.recovered_checkpoint if recover else checkpoint.newest_checkpoint
    newest = find(folder)
    assert newest is not None
    state, tensors = checkpoint.read_checkpoint(newest)
    assert torch.equal(tensors["gaussians.means"], _tensors(state["value"])["gaussians.means"])
    return state["step"], state["value"]


@pytest.fixture(scope="module", params=[1, 2], ids=["replacing", "adding"])
def step(request: pytest.FixtureRequest) -> int:
    """Of the checkpoint that is being written when it happens; the one before is of step 1."""
    return request.param


def _moments(tmp_path: Path, step: int) -> int:
    """The number of file operations of an undisturbed writing."""
    folder = tmp_path / "counted"
    _write(folder, 1, 10)
    with _struck(folder, -1, None) as striker:
        _write(folder, step, 20)
    assert _found(folder, recover=False) == (step, 20)
    return striker.seen


def test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path: Path, step: int):
    moments = _moments(tmp_path, step)
    assert moments >= 9
    outcomes = set()
    for moment in range(1, moments + 1):
        folder = tmp_path / f"killed_{moment}"
        _write(folder, 1, 10)
        with _struck(folder, moment, Killed()), pytest.raises(Killed):
            _write(folder, step, 20)
        found = _found(folder, recover=False)
        assert found in {(1, 10), (step, 20)}
        assert _found(folder, recover=True) == found
        assert not list(folder.glob(".*"))
        outcomes.add(found)
        _write(folder, step, 30)
        assert _found(folder, recover=False) == (step, 30)
    assert outcomes == {(1, 10), (step, 20)}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from_then_on"])
def test_a_full_disk_at_any_file_operation_is_one_sentence(tmp_path: Path, step: int, lasting: bool):
    num_refused = 0
    for moment in range(1, _moments(tmp_path, step) + 1):
        folder = tmp_path / f"full_{moment}"
        _write(folder, 1, 10)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with _struck(folder, moment, full, lasting=lasting):
            message = _refusal(folder, step)
        if message is not None:
            assert "cannot write the checkpoint" in message
            assert os.strerror(errno.ENOSPC) in message
            num_refused += 1
        assert _found(folder, recover=False) in {(1, 10), (step, 20)}
        assert _found(folder, recover=True) in {(1, 10), (step, 20)}
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
    assert _found(tmp_path, recover=False) == (1, 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path):
    _write(tmp_path, 1, 10)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot write the checkpoint"):
            _write(tmp_path, 2, 20)
        assert _found(tmp_path, recover=False) == (1, 10)
    finally:
        tmp_path.chmod(0o700)


def test_every_kind_of_damage_to_the_newest_leads_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rng = np.random.default_rng(0)
    for number, name in enumerate((checkpoint.STATE_FILE, checkpoint.TENSORS_FILE, checkpoint.CHECKSUMS_FILE)):
        for damage in ("missing", "empty", "cut", "bit", "high bit", "zeros"):
            folder = tmp_path / f"{number}_{damage}"
            _write(folder, 1, 10)
            path = _write(folder, 2, 20) / name
            content = bytearray(path.read_bytes())
            place = int(rng.integers(len(content)))
            if damage in ("bit", "high bit"):
                content[place] ^= 0x80 if damage == "high bit" else 1 << int(rng.integers(7))
            path.write_bytes({"empty": b"", "cut": content[:place], "zeros": bytes(len(content))}.get(damage, content))
            if damage == "missing":
                path.unlink()
            caplog.clear()
            assert _found(folder, recover=True) == (1, 10), (name, damage)
            assert "step_000002" in caplog.text


WRITER = """
    import os, random, sys, time
    from pathlib import Path
    import torch
    from splat_recon import checkpoint

    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    checkpoint.write_checkpoint(folder / "step_000001", {"step": 1, "value": 0}, {"gaussians.means": torch.zeros(9, 3)})
    for run in range(25):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.write(writer, b"x")
            value = 0
            while True:
                value += 1
                step = 1 + value % 2
                tensors = {"gaussians.means": torch.full((20_000, 3), float(value))}
                checkpoint.write_checkpoint(folder / f"step_{step:06d}", {"step": step, "value": value}, tensors)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        time.sleep(rng.random() * 0.06)
        os.kill(child, 9)
        os.waitpid(child, 0)
        seen = checkpoint.newest_checkpoint(folder)
        found = checkpoint.recovered_checkpoint(folder)
        assert seen is not None and found is not None, list(folder.iterdir())
        state, tensors = checkpoint.read_checkpoint(found)
        assert float(tensors["gaussians.means"].min()) == float(tensors["gaussians.means"].max()) == state["value"]
        print(run, found.name, "hidden" if seen.name.startswith(".") else "named", len(list(folder.iterdir())))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills processes")
def test_sigkill_at_random_moments_leaves_a_whole_checkpoint(tmp_path: Path):
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(WRITER))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder), "7"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 25
    assert signal.SIGKILL == 9
    shutil.rmtree(folder)
