"""difix3d-train --photos: from photos without cameras to a report, stopped on the way; and --config."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from difix3d.run.photos import num_photos
from difix3d_train_app.__main__ import main
from support.drawn_photos import NUM_PHOTOS, write_corner

SMALL = ["--model", "none", "--max-steps", "6", "--max-size", "40", "--num-novel", "3", "--stereo", "off"]
SMALL += ["--device", "cpu", "--split", "every:3"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 3)
    monkeypatch.setattr("difix3d.run.estimate.MEASURED_STEPS", 1)
    write_corner(tmp_path / "photos")
    return Path("photos")


def test_photos_become_a_report_with_stops_on_the_way(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pycolmap

    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    def not_again(*_args: object, **_options: object) -> None:
        raise RuntimeError

    begin = ["--photos", str(photos), "--out", "run", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr("splat_recon.io.sfm.reconstruct._match", interrupted)
        assert main(begin) == 130
    said = capsys.readouterr().err
    assert "This run takes about" in said
    assert "draft" in said or "By --quality" not in said
    assert "Go on with: uv run difix3d-train --out run --resume" in said
    assert not Path("run/config.json").exists()

    assert main(begin) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert main(["--photos", ".", "--out", "run", "--resume"]) == 2
    assert "--photos . contradicts the run" in capsys.readouterr().err
    assert main(["--out", "run", "--resume", "--max-steps", "7"]) == 2
    assert "--max-steps 7 contradicts the run" in capsys.readouterr().err

    # The search goes on where it was: its features are not found again.
    with monkeypatch.context() as patch:
        patch.setattr(pycolmap, "extract_features", not_again)
        assert main(["--out", "run", "--resume", "--stop-at", "3"]) == 0
    said = capsys.readouterr()
    assert f"{NUM_PHOTOS} of {NUM_PHOTOS} photos have a camera" in said.out
    assert "splat-recon view --splat run" in said.err
    assert json.loads(Path("run/config.json").read_text())["settings"]["scene"] == str(Path("run/scene"))

    # One command line for a job that is killed and started again.
    assert main([*begin, "--resume"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(Path("run/report.html"))
    assert said.err.splitlines()[-1].startswith("Next: uv run splat-recon export --splat run")
    assert {path.name for path in Path("run/scene").iterdir()} >= {"images", "sparse", "sfm_report.json"}
    # The run is named after the photos, and not after its own folder for their cameras.
    assert "<title>Difix3D: photos</title>" in Path("run/report.html").read_text(encoding="utf-8")
    assert "Fixing took" not in said.out


def test_a_run_is_repeated_from_its_config(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del photos
    assert main([*SMALL, "--out", "one", "--seed", "7", "--stop-at", "1"]) == 0
    assert main(["--config", "one", "--max-steps", "5", "--out", "two", "--stop-at", "1"]) == 0
    one, two = (json.loads(Path(run, "config.json").read_text())["settings"] for run in ("one", "two"))
    assert two == one | {"max_steps": 5}
    assert (one["seed"], one["fixer"]["model"]) == (7, "none")
    capsys.readouterr()
    for wrong in ("nowhere.json", "one/cameras.json"):
        assert main(["--config", wrong, "--out", "three"]) == 2
        assert f"--config {wrong}" in capsys.readouterr().err


def test_a_video_has_at_most_its_own_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * level, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert num_photos(film) == 5
    assert num_photos(film, most_frames=3) == 3
    film.write_text("no film")
    assert main(["--photos", str(film), "--out", str(tmp_path / "run")]) == 2
    assert "film.mp4" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_photos_without_a_match_leave_nothing(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(photos.iterdir())[2:]:
        path.unlink()
    assert main(["--photos", str(photos), "--out", "run", *SMALL]) == 2
    assert "at least 3 that overlap are needed" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--photos", "nowhere"], "no folder of photos or video nowhere"),
        (["--photos", ".", "--scene", "somewhere"], "a run is made of one thing"),
        (["--viewer"], "uv run --extra viewer difix3d-train"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("difix3d.viewer.training.find_spec", lambda _name: None)
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
