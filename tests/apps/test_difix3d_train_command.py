"""difix3d-train: exit codes, one sentence on bad input, stopping by signal and going on."""

import shutil
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from difix3d_train_app.__main__ import main

if TYPE_CHECKING:
    from splat_recon import SplatViewer


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Arguments of a run of seconds, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 3)
    return ["--model", "none", "--max-steps", "12", "--max-size", "40", "--num-novel", "3", "--num-rounds", "2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scene", "nowhere", "--out", "run"], "nowhere"),
        (["--model", "no/such/weights", "--out", "run"], "no/such/weights"),
        (["--out", "taken"], "taken is not empty"),
        (["--resume", "--out", "foreign"], "not the configuration of a run"),
        (["--split", "every:1", "--out", "run"], "every:1"),
        (["--scene", "nowhere", "--out", "taken/file"], "is a file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("[]")
    assert main([*arguments, "--max-size", "40"]) == 2
    said = capsys.readouterr().err
    error = said.splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments", [["--max-steps", "0"], ["--mixture.novel-prob", "2"], ["--targets", "moon"], ["--stop-at", "0"]]
)
def test_values_out_of_range_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_stopped_by_a_signal_goes_on_to_the_same_end(small, tmp_path, monkeypatch, capsys):
    assert main([*small]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs/demo/report.html"

    from difix3d import Experiment

    measure = Experiment._measure

    def terminated(experiment):
        measure(experiment)
        if experiment.step == 7:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "_measure", terminated)
        assert main([*small]) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "Stopped and saved at step 7" in said
    assert "uv run difix3d-train --out runs/demo-2 --resume" in said
    assert not (tmp_path / "runs/demo-2/report.html").exists()

    assert main(["--resume", "--max-steps", "13"]) == 2
    assert "--max-steps 13 contradicts the run" in capsys.readouterr().err
    assert main(["--resume", "--out", "runs/demo-2"]) == 0
    for name in ("plain.ply", "loop.ply", "metrics.json"):
        one, other = (tmp_path / "runs" / run / name for run in ("demo", "demo-2"))
        assert one.read_bytes() == other.read_bytes(), name


def test_stop_at_saves_and_says_how_to_go_on(small, tmp_path, monkeypatch, capsys):
    # A job that is killed and started again has one command line: it begins where nothing was begun.
    assert main([*small, "--out", "here", "--stop-at", "5", "--resume"]) == 0
    said = capsys.readouterr()
    assert "nothing in here to go on with yet: the run begins" in said.err
    assert "Stopped at step 5 as asked. Go on with: uv run difix3d-train --out here --resume" in said.err
    assert [path.name for path in (tmp_path / "here/checkpoints").iterdir() if path.name >= "step_000005"]

    # What is in training can be looked at: `splat-recon view --splat here`.
    from splat_recon_app.sources import opened
    from splat_recon_app.view import FollowedRun

    for which in ("best", "plain"):
        found = opened(tmp_path / "here", which, cameras=None, device="cpu")
        assert len(found.splats.gaussians) > 0
        assert len(found.cameras) == 6
    said = []
    viewer = SimpleNamespace(set_status=said.append, requests=SimpleNamespace(ask_again=lambda: said.append("asked")))
    followed = FollowedRun(tmp_path / "here", found.splats, cast("SplatViewer", viewer), which="plain")
    shutil.copytree(tmp_path / "here/checkpoints/step_000005", tmp_path / "here/checkpoints/step_000006")
    monkeypatch.setattr("splat_recon_app.view.SECONDS_BETWEEN_LOOKS", 0)
    followed.look()
    assert said[0].startswith("step 5, ")
    assert said[1:] == [said[0], "asked"]
    followed.look()
    assert len(said) == 3
