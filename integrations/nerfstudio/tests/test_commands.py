"""The commands as users type them: both methods are listed, and the published command runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = shutil.which("ns-train", path=str(Path(sys.executable).parent))
    assert command, "nerfstudio is not installed beside this Python"
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run([command, *arguments], capture_output=True, text=True, env=env, check=False)


def test_the_published_command_runs(scene: Path, tmp_path: Path):
    done = run(
        "difix3d", "--data", str(scene),
        "--pipeline.model.appearance-embed-dim", "0", "--pipeline.model.camera-optimizer.mode", "off",
        "--output-dir", str(tmp_path / "out"), "--max-num-iterations", "4", "--timestamp", "t",
        # What a CPU adds:
        "--machine.device-type", "cpu", "--vis", "tensorboard", "--pipeline.model.implementation", "torch",
        "--pipeline.datamanager.train-num-rays-per-batch", "64", "--pipeline.model.log2-hashmap-size", "10",
        "--pipeline.model.num-nerf-samples-per-ray", "8", "--pipeline.model.num-proposal-samples-per-ray", "8", "8",
        "--pipeline.rounds.first", "2", "--pipeline.rounds.last", "1", "--pipeline.targets.num-views", "1",
        "nerfstudio-data", "--orientation-method", "none", "--center-method", "none", "--auto-scale-poses", "False",
        "--downscale-factor", "2", "--eval-mode", "filename",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Difix3D round 0 at step 2" in done.stdout
    (run_folder,) = (tmp_path / "out").glob("*/difix3d/t")
    assert list(run_folder.glob("nerfstudio_models/step-*.ckpt"))
    assert (run_folder / "rounds" / "round_000" / "000_fixed.png").is_file()


def test_entry_points_name_both_methods():
    from nerfstudio.plugins.registry import discover_methods

    methods, descriptions = discover_methods()
    assert {"difix3d", "difix3d-splat"} <= set(methods)
    assert "Difix" in descriptions["difix3d"]


def test_a_failing_import_of_ours_leaves_other_methods_alone(monkeypatch: pytest.MonkeyPatch):
    import importlib

    import difix3d_nerfstudio.entry as entry
    from nerfstudio.plugins.registry import discover_methods

    monkeypatch.setitem(sys.modules, "difix3d_nerfstudio.methods", None)  # An import of it raises.
    with pytest.warns(UserWarning, match="difix3d-nerfstudio cannot be used"):
        importlib.reload(entry)
    methods, _ = discover_methods()
    assert "difix3d" not in methods
    monkeypatch.undo()
    importlib.reload(entry)
    assert "difix3d" in discover_methods()[0]
