import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

from splat_recon import Points, StereoConfig, View
from splat_recon_app import cli, presets
from splat_recon_app.__main__ import main
from splat_render import Camera
from support.table_scene import write_table


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory, num_views=6, width=64, height=48, num_points=200)


def _train(scene: Path, out: Path, *more: str) -> list[str]:
    flags = ["--scene", str(scene), "--out", str(out), "--device", "cpu", "--split", "every:3"]
    if "--stereo" not in more:
        flags += ["--stereo", "off"]
    return ["train", *flags, "--max-steps", "30", "--checkpoint-every", "12", *more]


@pytest.fixture(scope="module")
def finished(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(_train(scene_folder, out)) == 0
    return out


def _refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("error: ") :]


def test_training_leaves_the_agreed_run_folder(finished: Path):
    assert sorted(path.name for path in finished.iterdir()) == [
        "cameras.json",
        "checkpoints",
        "config.json",
        "contact_sheet.png",
        "evaluations.jsonl",
        "images",
        "log.txt",
        "metrics.json",
        "metrics.jsonl",
        "point_cloud.ply",
        "report.html",
    ]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "step_000012",
        "step_000024",
        "step_000030",
    ]
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["train"]["max_steps"] == 30
    assert "torch" in config["versions"]
    scores = json.loads((finished / "metrics.json").read_text())
    assert scores["step"] == 30
    assert scores["split"] == "test"
    assert len(scores["per_view"]) == 2
    images = sorted((finished / "images").glob("*.png"))
    assert len(images) == 2
    with Image.open(images[0]) as image:
        assert image.size == (128, 48)


def test_all_photos_may_be_trained_on(scene_folder: Path, tmp_path: Path) -> None:
    flags = ["--scene", str(scene_folder), "--out", str(tmp_path / "run"), "--stereo", "off", "--device", "cpu"]
    assert main(["train", *flags, "--split", "none", "--max-steps", "3"]) == 0
    scores = json.loads((tmp_path / "run" / "metrics_train.json").read_text())
    assert scores["split"] == "train"
    assert len(scores["per_view"]) == 6
    page = (tmp_path / "run" / "report.html").read_text()
    assert "6 training photos" in page
    assert f"FLIP {scores['flip']:.3f}" in page
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert main(["eval", "--splat", str(tmp_path / "run"), "--device", "cpu"]) == 2


def test_the_path_written_last_is_printed(scene_folder: Path, tmp_path: Path, capsys):
    assert main(_train(scene_folder, tmp_path / "run", "--stop-at", "3")) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "run" / "point_cloud.ply")]


@pytest.mark.parametrize(
    "options",
    [
        "--preset default",
        "--preset mcmc",
        "--preset absgrad --random-background --depth-weight 0.01",
        "--preset antialiased --refine-poses --appearance exposure --batch-size 2",
    ],
)
def test_stopping_and_resuming_is_the_same_run(scene_folder: Path, tmp_path: Path, options: str):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(_train(scene_folder, whole, *options.split())) == 0
    assert main(_train(scene_folder, parts, *options.split(), "--stop-at", "15")) == 0
    assert json.loads((parts / "metrics.json").read_text())["step"] == 15
    assert main(_train(scene_folder, parts, *options.split(), "--resume")) == 0
    assert (whole / "metrics.json").read_text() == (parts / "metrics.json").read_text()
    assert (whole / "metrics.jsonl").read_text() == (parts / "metrics.jsonl").read_text()
    assert (whole / "point_cloud.ply").read_bytes() == (parts / "point_cloud.ply").read_bytes()
    refined = [run / "cameras_refined.json" for run in (whole, parts)]
    assert refined[0].exists() == ("--refine-poses" in options)
    if refined[0].exists():
        assert refined[0].read_text() == refined[1].read_text() != (whole / "cameras.json").read_text()


def test_a_run_that_starts_with_stereo_keeps_it_and_goes_on_as_if_nothing_had_happened(
    scene_folder: Path, tmp_path: Path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(_train(scene_folder, whole, "--stereo", "auto")) == 0
    assert main(_train(scene_folder, parts, "--stereo", "auto", "--stop-at", "15")) == 0
    assert (whole / "stereo.npz").read_bytes() == (parts / "stereo.npz").read_bytes()
    # What was kept is read; what is damaged is matched again.
    kept = (parts / "stereo.npz").read_bytes()
    (parts / "stereo.npz").write_bytes(kept[:500])
    assert main(_train(scene_folder, parts, "--stereo", "auto", "--stop-at", "20", "--resume")) == 0
    (parts / "stereo.npz").write_bytes(kept)
    assert main(_train(scene_folder, parts, "--stereo", "auto", "--resume")) == 0
    assert (whole / "metrics.json").read_text() == (parts / "metrics.json").read_text()
    assert (whole / "point_cloud.ply").read_bytes() == (parts / "point_cloud.ply").read_bytes()
    config = json.loads((whole / "config.json").read_text())["settings"]
    assert config["stereo"].startswith("Stereo: ")
    assert config["train"]["strategy"]["grow_grad2d"] == StereoConfig().grow_grad2d
    report = (whole / "report.html").read_text()
    assert '<iframe class="scene"' in report
    assert config["stereo"] in report
    assert "The start by stereo" in report


def test_one_photo_is_too_few_for_stereo(scene_folder: Path, tmp_path: Path, capsys):
    message = _refused(capsys, _train(scene_folder, tmp_path / "run", "--stereo", "on", "--sparse", "1"))
    assert "at least two training photos" in message
    assert not (tmp_path / "run").exists()


def test_eval_scores_the_run_again(finished: Path, capsys):
    before = (finished / "metrics.json").read_text()
    assert main(["eval", "--splat", str(finished), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.split() == [str(finished / "metrics.json")]
    assert (finished / "metrics.json").read_text() == before
    assert main(["eval", "--splat", str(finished), "--device", "cpu", "--side", "train"]) == 0
    scores = json.loads((finished / "metrics_train.json").read_text())
    assert len(scores["per_view"]) == 4
    assert (finished / "contact_sheet_train.png").is_file()
    (finished / "contact_sheet_train.png").unlink()
    (finished / "metrics_train.json").unlink()
    for name in scores["per_view"]:
        (finished / "images" / name).with_suffix(".png").unlink()


def test_eval_keeps_what_a_training_with_exposures_wrote(scene_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    assert main([*_train(scene_folder, out), "--appearance", "exposure", "--keep-checkpoints", "2"]) == 0
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step_000024", "step_000030"]
    before = json.loads((out / "metrics.json").read_text())
    assert before["color_corrected"]["psnr"] > 0
    assert "colors aligned" in (out / "report.html").read_text()
    assert main(["eval", "--splat", str(out), "--device", "cpu"]) == 0
    assert json.loads((out / "metrics.json").read_text()) == before


def test_eval_needs_the_split_of_the_run(scene_folder: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    """Scores on photos that were trained on would look like better ones; lists are found from any folder."""
    monkeypatch.chdir(tmp_path)
    names = sorted(path.name for path in (scene_folder / "images").iterdir())
    Path("held_out.txt").write_text(names[1])
    argv = _train(scene_folder, tmp_path / "run", "--stop-at", "2")
    argv[argv.index("--split") + 1] = "held_out.txt"
    assert main(argv) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    scored = ["eval", "--splat", str(tmp_path / "run"), "--device", "cpu"]
    assert main(scored) == 0
    before = (tmp_path / "run" / "metrics.json").read_text()
    assert list(json.loads(before)["per_view"]) == [names[1]]
    (tmp_path / "held_out.txt").write_text(names[2])
    assert "is not split as it was" in _refused(capsys, scored)
    assert (tmp_path / "run" / "metrics.json").read_text() == before


def test_a_splat_file_is_scored_as_the_run_is(finished: Path, scene_folder: Path, tmp_path: Path, capsys):
    file = ["eval", "--splat", str(finished / "point_cloud.ply"), "--device", "cpu"]
    where = ["--scene", str(scene_folder), "--out", str(tmp_path / "scores")]
    capsys.readouterr()
    assert main([*file, *where, "--split", "every:3"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "scores" / "metrics.json")]
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    expected = json.loads((finished / "metrics.json").read_text())
    assert scores["step"] is None
    assert scores["per_view"].keys() == expected["per_view"].keys()
    # The training ended before its highest degree of colors, which the file has; they are still nearly zero.
    assert scores["psnr"] == pytest.approx(expected["psnr"], abs=0.1)
    assert main([*file, *where, "--side", "all"]) == 0
    assert len(json.loads((tmp_path / "scores" / "metrics_all.json").read_text())["per_view"]) == 6
    before = (finished / "metrics.json").read_text()
    assert "holds a run" in _refused(capsys, [*file, "--scene", str(scene_folder), "--out", str(finished)])
    assert (finished / "metrics.json").read_text() == before
    assert "needs --scene" in _refused(capsys, file)


def test_export_is_in_colmaps_frame(finished: Path, scene_folder: Path, tmp_path: Path):
    from splat_recon import read_scene
    from splat_render import read_ply

    out = tmp_path / "new" / "splats.ply"
    assert main(["export", "--splat", str(finished), "--out", str(out)]) == 0
    assert out.read_bytes() == (finished / "point_cloud.ply").read_bytes()
    p_world = read_scene(scene_folder).points.p_world
    means = read_ply(out).means.numpy()
    nearest = np.linalg.norm(means[:, None] - p_world[None], axis=-1).min(axis=1)
    assert np.median(nearest) < 0.02 * np.ptp(p_world, axis=0).max()


def test_render_writes_a_video_without_the_photos(finished: Path, tmp_path: Path):
    av = pytest.importorskip("av")
    out = tmp_path / "path.mp4"
    argv = ["render", "--splat", str(finished), "--out", str(out), "--device", "cpu", "--frames-per-view", "2"]
    assert main(argv) == 0
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 7
    assert frames[0].shape == (48, 64, 3)
    assert frames[0].std() > 5


def test_bad_input_is_one_sentence_and_exit_code_2(scene_folder: Path, finished: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    cases = {
        "no scene folder": _train(tmp_path / "missing", out),
        "empty": _train(tmp_path / "empty", out),
        "cannot write": _train(scene_folder, tmp_path / "file" / "run"),
        "add --resume": _train(scene_folder, finished),
        "max_steps was 30, is now 31": _train(scene_folder, finished, "--resume", "--max-steps", "31"),
        "sparse asks for 9": _train(scene_folder, out, "--sparse", "9"),
        "every:N": _train(scene_folder, out, "--split", "every:x"),
        "there is no run in": ["eval", "--splat", str(tmp_path / "empty")],
        "must end in .mp4": ["render", "--splat", str(finished), "--out", str(tmp_path / "path.txt")],
        "ends in .compressed.ply": ["export", "--splat", str(finished), "--out", str(tmp_path / "x.obj")],
        "no folder of photos": ["sfm", "--images", str(tmp_path / "missing"), "--out", str(out)],
        "at least 3": ["sfm", "--images", str(tmp_path / "empty"), "--out", str(tmp_path / "sfm")],
    }
    for sentence, argv in cases.items():
        assert sentence in _refused(capsys, argv), sentence
    assert not out.exists()
    assert not (tmp_path / "empty" / "log.txt").exists()


def test_what_is_no_run_or_another_scene_is_told(finished: Path, tmp_path: Path, capsys):
    foreign, blind = tmp_path / "foreign", tmp_path / "blind"
    for run, name in ((foreign, "config.json"), (blind, "cameras.json")):
        shutil.copytree(finished, run)
        (run / name).write_text("{}")
    (foreign / "point_cloud.ply").unlink()
    cases = {
        "is not the configuration": ["eval", "--splat", str(foreign)],
        "does not hold the cameras": ["export", "--splat", str(blind), "--out", str(tmp_path / "x.ply")],
        "at least 3": ["sfm", "--images", str(foreign / "checkpoints"), "--out", str(tmp_path / "sfm")],
    }
    for sentence, argv in cases.items():
        assert sentence in _refused(capsys, argv), sentence
    assert not (tmp_path / "sfm").exists()
    scores = (finished / "metrics.json").read_text()
    assert "is not the one" in _refused(
        capsys, ["eval", "--splat", str(finished), "--scene", str(_other_scene(tmp_path / "other"))]
    )
    assert (finished / "metrics.json").read_text() == scores


def _other_scene(folder: Path) -> Path:
    from splat_recon import SyntheticConfig, generate_scene, write_scene

    config = SyntheticConfig(num_views=4, width=64, height=48, num_points=200, layout="table")
    write_scene(folder, generate_scene(6, config))
    return folder


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "99999999999999999999999"],
        ["--max-steps", "0"],
        ["--max-size", "5"],
        ["--preset", "other"],
        ["--checkpoint-every", "-1"],
        [],
    ],
)
def test_bad_flags_exit_with_2(scene_folder: Path, tmp_path: Path, flags: list[str], capsys):
    argv = _train(scene_folder, tmp_path / "out", *flags) if flags else ["train"]
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_scoring_is_told_and_resumed(
    scene_folder: Path, tmp_path: Path, number: int, capsys, monkeypatch: pytest.MonkeyPatch
):
    from splat_recon import evaluate

    out = tmp_path / "run"
    monkeypatch.setattr(evaluate, "evaluate", lambda *_args, **_more: signal.raise_signal(number))
    argv = [*_train(scene_folder, out), "--eval-every", "0"]
    assert main(argv) == 128 + number
    assert "add --resume" in capsys.readouterr().err
    assert f"ended by signal {number}" in (out / "log.txt").read_text()
    assert signal.getsignal(number) is signal.SIG_DFL
    monkeypatch.undo()
    assert main([*argv, "--resume"]) == 0
    assert json.loads((out / "metrics.json").read_text())["step"] == 30


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_saves_and_leaves_a_run_that_resumes(scene_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    argv = _train(scene_folder, out)
    argv[argv.index("--max-steps") + 1] = "100000"
    process = subprocess.Popen(
        [sys.executable, "-m", "splat_recon_app", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 600
    while not (out / "checkpoints" / "step_000012").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    last = Path(printed.strip())
    assert (last / "checksums.json").is_file()
    assert not list((out / "checkpoints").glob(".*"))
    stop_at = str(int(last.name.removeprefix("step_")) + 2)
    assert main([*argv, "--resume", "--stop-at", stop_at]) == 0
    assert json.loads((out / "metrics.json").read_text())["step"] == int(stop_at)


NO_POINTS = Points(p_world=np.zeros((0, 3)), rgb_u8=np.zeros((0, 3), dtype=np.uint8))


def _photo() -> View:
    camera = Camera(T_world_cam=np.eye(4), K=np.diag([4.0, 4, 1]), width=4, height=3)
    return View(name="a", camera=camera, rgb_u8=np.full((3, 4, 3), 51, dtype=np.uint8))


@pytest.mark.parametrize(
    ("flags", "num_photos", "expected"),
    [
        ([], 6, (0.2, 0.2, 0.2)),
        ([], 40, (0.0, 0.0, 0.0)),
        (["--background", "0", "0.5", "1"], 6, (0.0, 0.5, 1.0)),
        (["--background", "0", "0.5", "1"], 40, (0.0, 0.5, 1.0)),
    ],
)
def test_the_color_behind_few_photos_is_theirs_unless_a_flag_says_otherwise(
    flags: list[str], num_photos: int, expected: tuple[float, float, float]
):
    args = tyro.cli(cli.Train, args=["--scene", "scene", "--out", "out", *flags])
    assert presets.train_config(args, "cpu", [_photo()] * num_photos, NO_POINTS).background == expected


@pytest.mark.parametrize(
    ("flags", "num_photos", "expected"),
    [
        ([], 6, (0.1, 0.01, 0.01)),
        ([], 40, (0.0, 0.0, 0.0)),
        (["--dropout", "0", "--opacity-reg", "0"], 6, (0.0, 0.0, 0.01)),
        (["--preset", "mcmc", "--dropout", "0.2"], 40, (0.2, 0.01, 0.01)),
    ],
)
def test_few_photos_are_regularized_unless_flags_say_otherwise(
    flags: list[str], num_photos: int, expected: tuple[float, float, float]
):
    args = tyro.cli(cli.Train, args=["--scene", "scene", "--out", "out", *flags])
    config = presets.train_config(args, "cpu", [_photo()] * num_photos, NO_POINTS)
    assert (config.dropout, config.opacity_reg, config.scale_reg) == expected


def test_a_damaged_newest_checkpoint_is_skipped(scene_folder: Path, tmp_path: Path, finished: Path, capsys):
    out = tmp_path / "run"
    assert main(_train(scene_folder, out, "--stop-at", "20")) == 0
    tensors = out / "checkpoints" / "step_000020" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    assert main(_train(scene_folder, out, "--resume")) == 0
    shown = capsys.readouterr().err.replace("\n", "")
    assert "step_000020" in shown
    assert (out / "metrics.json").read_text() == (finished / "metrics.json").read_text()
