"""Queues of scenes: finished ones are skipped, stopped ones go on, failures stop nothing, and the summary says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from difix3d import InputError, RoundsConfig, RunFolder, RunSettings, ValidationConfig, ViewFixerConfig
from difix3d.queue.scene_task import RunOutcome, SceneTask
from difix3d.queue.scenes import is_finished, run_queue, scene_folders, scene_tasks
from splat_recon import SyntheticConfig, generate_scene, write_scene

SETTINGS = RunSettings(
    fixer=ViewFixerConfig(model="none"),
    max_steps=6,
    max_size=40,
    max_gaussians=300,
    rounds=RoundsConfig(num_rounds=1),
    num_novel=2,
    split="every:3",
    validation=ValidationConfig(fraction=0.0),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes, and one between them that is broken."""
    folder = tmp_path_factory.mktemp("scenes")
    for index, name in enumerate(("a", "b", "c")):
        write_scene(folder / name, generate_scene(index, SyntheticConfig(width=40, height=30, num_views=6)))
    (folder / "notes").mkdir()
    for photo in (folder / "b" / "images").iterdir():
        photo.write_bytes(b"broken")
    return folder


def outcomes(tasks: list[SceneTask], out: Path, **options: Any) -> dict[str, RunOutcome]:
    return {outcome.name: outcome for outcome in run_queue(tasks, out, **options)}


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    outcomes(scene_tasks(folder, out, SETTINGS), out)
    return out


def test_scenes_are_the_folders_that_hold_one(folder: Path, tmp_path: Path) -> None:
    assert [path.name for path in scene_folders(folder)] == ["a", "b", "c"]
    with pytest.raises(InputError, match="use --scene"):
        scene_folders(folder / "a")
    with pytest.raises(InputError, match="no folder"):
        scene_folders(tmp_path / "away")


def test_a_queue_begins_without_what_only_its_runs_need(folder: Path, done: Path, tmp_path: Path) -> None:
    """Finding the scenes, skipping finished ones and writing the summary loads no torch."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from difix3d.queue.scenes import run_queue, scene_tasks\n"
        "from difix3d.run.settings import RunSettings\n"
        f"settings = RunSettings.from_dict({SETTINGS.to_dict()!r})\n"
        f"tasks = scene_tasks(Path({str(folder)!r}), Path({str(done)!r}), settings)\n"
        "finished = [task for task in tasks if task.name != 'b']\n"
        f"found = list(run_queue(finished, Path({str(tmp_path)!r})))\n"
        "assert [one.was_finished for one in found] == [True, True], found\n"
        "heavy = {'torch', 'numba', 'scipy', 'pycolmap', 'diffusers', 'ray'} & set(sys.modules)\n"
        "assert not heavy, sorted(heavy)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["transforms.json", "transforms_train.json"])
def test_scenes_of_every_layout_are_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text("{}", encoding="utf-8")
    (tmp_path / "b").mkdir()
    assert [path.name for path in scene_folders(tmp_path)] == ["a"]


def test_a_failed_scene_stops_nothing_and_stands_in_the_summary(done: Path) -> None:
    rows = {row["name"]: row for row in summary(done)["scenes"]}
    assert [rows[name]["state"] for name in "abc"] == ["finished", "failed", "finished"]
    assert rows["b"]["error"]
    assert (done / "failed" / "b.txt").is_file()
    assert summary(done)["num_failed"] == 1
    page = (done / "summary.html").read_text(encoding="utf-8")
    assert 'href="a/report.html"' in page
    assert "2 of 3 scenes are finished, 1 failed" in page
    plain = [rows[name]["variants"]["plain"]["psnr"] for name in "ac"]
    assert summary(done)["means"]["plain"]["psnr"] == pytest.approx(sum(plain) / 2)


def test_finished_scenes_are_not_run_again(folder: Path, done: Path) -> None:
    before = (done / "a" / "metrics.json").stat().st_mtime_ns
    found = outcomes(scene_tasks(folder, done, SETTINGS), done)
    assert found["a"].was_finished
    assert found["c"].was_finished
    assert found["b"].error
    assert (done / "a" / "metrics.json").stat().st_mtime_ns == before


def test_runs_of_other_settings_are_not_mixed(folder: Path, done: Path) -> None:
    other = RunSettings.from_dict(SETTINGS.to_dict() | {"seed": 7})
    with pytest.raises(InputError, match="another seed"):
        scene_tasks(folder, done, other)


def test_what_was_stopped_goes_on_to_the_same_result(folder: Path, done: Path, tmp_path: Path) -> None:
    tasks = [task for task in scene_tasks(folder, tmp_path, SETTINGS) if task.name == "a"]

    def stop(name: str, progress: Any) -> None:
        if progress.phase == "train" and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcomes(tasks, tmp_path, on_progress=stop)
    assert summary(tmp_path)["scenes"][0]["state"] == "unfinished"
    assert RunFolder(tmp_path / "a").checkpoint_steps()
    outcomes(tasks, tmp_path)
    ours, theirs = (json.loads((out / "a" / "metrics.json").read_text(encoding="utf-8")) for out in (tmp_path, done))
    assert ours["variants"] == theirs["variants"]


def test_a_folder_that_was_left_before_the_run_began_is_used_again(folder: Path, tmp_path: Path) -> None:
    task = next(task for task in scene_tasks(folder, tmp_path, SETTINGS) if task.name == "c")
    task.folder.mkdir()
    (task.folder / "log.txt").write_text("begun\n", encoding="utf-8")
    assert outcomes([task], tmp_path)["c"].error is None
    assert is_finished(task)


def _processes(folder: Path, out: Path, **options: Any) -> Iterator[tuple[str, Any]]:
    for name, outcome in outcomes(scene_tasks(folder, out, SETTINGS), out, **options).items():
        yield name, outcome.error


@pytest.mark.slow
def test_processes_and_ray_come_to_the_same_results(folder: Path, done: Path, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [{"num_processes": 2}]
    try:
        import ray  # noqa: F401  # pyright: ignore[reportMissingImports]

        ways.append({"num_processes": 2, "ray_address": "local"})
    except ImportError:
        pass
    for index, options in enumerate(ways):
        out = tmp_path / str(index)
        errors = dict(_processes(folder, out, **options))
        assert [bool(errors[name]) for name in "abc"] == [False, True, False]
        for name in "ac":
            ours, theirs = (
                json.loads((place / name / "metrics.json").read_text(encoding="utf-8")) for place in (out, done)
            )
            assert ours["variants"] == theirs["variants"]
