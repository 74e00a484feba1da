"""Two processes with batch 1 do what one does with batch 2, with copies of the network and with shards of it.

The launch files that the package ships start them as well, on CPUs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

from difix_model import load_checkpoint
from support import train_in_processes, train_line
from support.gradio_page import free_port
from support.line_task import LineModelTask
from support.train_in_processes import train
from train_runs import Loop, read_checkpoint
from train_runs.processes import SHARDED_VARIABLE

STEPS = 3
CONFIGS = Path(__file__).resolve().parents[2] / "packages" / "difix-train" / "configs"


def _launch(folder: Path, *, sharded: bool, stops: str) -> None:
    """Start two processes as a launcher does, by environment variables, and wait for them."""
    shared = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
        SHARDED_VARIABLE: str(sharded).lower(),
    }
    command = [sys.executable, train_in_processes.__file__, str(folder), stops]
    started = [
        subprocess.Popen(
            command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in ("0", "1")
    ]
    try:
        outputs = [process.communicate(timeout=300)[0].decode() for process in started]
    finally:
        for process in started:
            process.kill()  # What hangs would go on after the test.
    assert [process.returncode for process in started] == [0, 0], "\n".join(outputs)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(folder, 2, [STEPS])
    return folder / f"{STEPS}"


def _assert_same_run(ours: Path, theirs: Path) -> None:
    expected, found = load_checkpoint(theirs / "model"), load_checkpoint(ours / "model")
    for (name, value), other in zip(
        expected.network.state_dict().items(), found.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(other, value, atol=2e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    own, other = (read_checkpoint(folder).values["task"] for folder in (ours, theirs))
    assert own["sampler"] == other["sampler"]


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["copies", "shards"])
def test_two_processes_equal_one_with_twice_the_batch_and_resume(alone: Path, tmp_path: Path, sharded: bool) -> None:
    _launch(tmp_path, sharded=sharded, stops=f"1,{STEPS}")
    _assert_same_run(tmp_path / f"{STEPS}", alone)


@pytest.mark.slow
def test_training_moved_the_weights_by_far_more_than_the_tolerance(alone: Path, tmp_path: Path) -> None:
    train(tmp_path, 2, [1])
    before = load_checkpoint(tmp_path / "1" / "model").network.state_dict()
    after = load_checkpoint(alone / "model").network.state_dict()
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-4


def _launch_file(name: str, *program: str, num_machines: int = 1) -> None:
    """Run a program by `accelerate launch` with a file of ours and two processes.

    Several machines are as many launchers on this one.
    """
    given = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    given["PYTHONPATH"] = str(Path(__file__).parents[1])
    port = str(free_port())
    started = []
    for rank in range(num_machines):
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / name)]
        command += ["--num_processes", "2", "--main_process_port", port]
        if num_machines > 1:
            command += ["--num_machines", str(num_machines), "--machine_rank", str(rank)]
            command += ["--main_process_ip", "127.0.0.1"]
        command += program
        started.append(subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    try:
        outputs = [launcher.communicate(timeout=300)[0].decode() for launcher in started]
    finally:
        for launcher in started:
            launcher.terminate()  # One that hangs; it ends its processes.
            launcher.wait()
    assert [launcher.returncode for launcher in started] == [0] * num_machines, "\n".join(outputs)


@pytest.fixture(scope="module")
def one_step_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one_step_alone")
    train(folder, 2, [1])
    return folder / "1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_machines"),
    [("cpu.yaml", 1), ("fsdp.yaml", 1), ("cpu.yaml", 2)],
    ids=["cpu", "fsdp", "cpu-two-launchers"],
)
def test_a_shipped_launch_file_trains_in_two_processes(
    one_step_alone: Path, tmp_path: Path, name: str, num_machines: int
) -> None:
    _launch_file(name, train_in_processes.__file__, str(tmp_path), "1", num_machines=num_machines)
    found = json.loads((tmp_path / "processes.json").read_text())
    assert found == {"world_size": 2, "sharded": name == "fsdp.yaml"}
    assert read_checkpoint(tmp_path / "1").values["world_size"] == 2
    _assert_same_run(tmp_path / "1", one_step_alone)


def test_the_launch_file_for_shards_trains_a_small_model_as_one_process_does(tmp_path: Path) -> None:
    """Quick, as nothing but torch and accelerate is loaded; the network itself is slow."""
    _launch_file("fsdp.yaml", train_line.__file__, str(tmp_path / "two"))
    assert json.loads((tmp_path / "two" / "seen.json").read_text()) == {"world_size": 2, "sharded": True}
    Loop(LineModelTask(4), tmp_path / "alone", train_line.CONFIG).train_until(6)
    two, alone = (read_checkpoint(tmp_path / name / "checkpoints" / "step_000006").tensors for name in ("two", "alone"))
    assert two.keys() == alone.keys()
    for name, value in two.items():
        if name != "task/num_seen":
            torch.testing.assert_close(value, alone[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_launch_files_are_what_the_launcher_and_the_trainer_expect() -> None:
    """Unknown keys are refused by the reader; precision is the command's own business."""
    read: dict[str, ClusterConfig] = {}
    for path in CONFIGS.glob("*.yaml"):
        config = load_config_from_file(str(path))
        assert isinstance(config, ClusterConfig)
        read[path.name] = config
    assert set(read) == {"cpu.yaml", "ddp.yaml", "fsdp.yaml"}
    for name, config in read.items():
        assert (config.num_machines, config.machine_rank, config.mixed_precision) == (1, 0, "no"), name
        assert config.use_cpu == (name == "cpu.yaml")
        assert config.num_processes == (2 if name == "cpu.yaml" else 8)
    # Another type than these two makes `accelerate launch` start a single process.
    assert read["cpu.yaml"].distributed_type == read["ddp.yaml"].distributed_type == DistributedType.MULTI_GPU
    assert read["fsdp.yaml"].distributed_type == DistributedType.FSDP
    assert read["fsdp.yaml"].fsdp_config == {"fsdp_version": 2}
    assert not read["ddp.yaml"].fsdp_config
