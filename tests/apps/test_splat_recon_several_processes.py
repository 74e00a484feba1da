"""`train` as torchrun starts it: two processes on CPUs, with a stand-in for gsplat's exchange between GPUs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from splat_recon_app.__main__ import main
from support.ranks import run_ranks
from support.table_scene import write_table

PROCESS = """
    import sys
    import torch
    from splat_recon import trainer as engine
    from splat_recon.distributed import World
    import tyro
    from splat_recon_app.cli import Train
    from splat_recon_app.train_shared import train_with
    from support.shared_rasterizer import GatheringRasterizer

    engine.SharedGsplatRasterizer = GatheringRasterizer
    torch.set_num_threads(1)

    def main():
        args = tyro.cli(Train, args=sys.argv[2:])
        return train_with(args, World.from_environment(), device="cpu", backend="gloo")
"""


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory, num_views=6, width=40, height=32, num_points=60)


def _train(scene: Path, out: Path, *more: str) -> list[str]:
    flags = ["--scene", str(scene), "--out", str(out), "--split", "every:3", "--max-steps", "20"]
    return ["train", *flags, "--stereo", "off", "--checkpoint-every", "8", *more]


def test_two_processes_leave_one_run_that_goes_on(scene_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    printed = run_ranks(PROCESS, *_train(scene_folder, out, "--stop-at", "10"), folder=tmp_path)
    assert printed[0].split() == [str(out / "point_cloud.ply")]
    assert printed[1] == ""
    run_ranks(PROCESS, *_train(scene_folder, out, "--resume"), folder=tmp_path)
    scores = json.loads((out / "metrics.json").read_text())
    assert scores["step"] == 20
    (num_points,) = re.findall(r"Training starts from (\d+) of 60 points", (out / "log.txt").read_text())[:1]
    assert scores["num_gaussians"] == int(num_points)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
        "step_000008", "step_000010", "step_000016", "step_000020",
    ]  # fmt: skip
    assert main(["eval", "--splat", str(out), "--device", "cpu"]) == 0
    assert json.loads((out / "metrics.json").read_text())["psnr"] == pytest.approx(scores["psnr"], abs=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="has two GPUs")
def test_processes_without_gpus_are_told_in_a_sentence(
    scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert main(_train(scene_folder, tmp_path / "run")) == 2
    assert "each needs a GPU of its own" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_torchrun_trains_on_two_gpus(scene_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "splat_recon_app"]
    done = subprocess.run([*command, *_train(scene_folder, out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "metrics.json").read_text())["step"] == 20
