"""`difix-fix` on videos and sequences, end to end on a tiny checkpoint."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix_fix.__main__ import main
from difix_model import DifixPipeline

pytest.importorskip("av")

from media_files import VideoWriter, read_frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "in.mp4", rate=10) as writer:
        for _ in range(6):
            writer.write(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1))
    return tmp_path / "in.mp4"


def test_a_video_and_a_sequence(
    clip: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fixed.mp4"
    assert main(["--input", str(clip), "--out", str(out), "--model", checkpoint, "--steady"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert len(list(read_frames(out))) == 6
    numbered = tmp_path / "frames" / "%03d.png"
    assert main(["--input", str(clip), "--out", str(numbered), "--model", checkpoint]) == 0
    assert len(list((tmp_path / "frames").iterdir())) == 6
    made = tmp_path / "made.mp4"
    given = ["--input", str(tmp_path / "frames"), "--out", str(made), "--model", checkpoint]
    assert main([*given, "--fps", "12", "--strength", "0"]) == 0
    expected = np.asarray(Image.open(tmp_path / "frames" / "001.png")).astype(float).mean()
    assert abs(next(read_frames(made)).mean() - expected) < 2


@pytest.mark.parametrize("kind", ["video", "sequence"])
def test_where_the_gate_keeps_every_frame_it_is_said_and_how_to_do_without(
    kind: str, clip: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, rgb in enumerate(read_frames(clip)):
        Image.fromarray(rgb).save(frames / f"{number}.png")
    of_kind = ["--input", str(clip)] if kind == "video" else ["--input", str(frames), "--steady"]
    given = [*of_kind, "--model", checkpoint, "--reference", str(frames)]
    assert main([*given, "--out", str(tmp_path / "fixed")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Changed 0 of 6 frames" in said
    assert "6 kept: its colors move away from the reference photo's" in said
    assert "Nothing was changed: the gate keeps what it finds good" in said
    assert "--gate off" in said.split("Next:")[1]
    assert main([*given, "--out", str(tmp_path / "ungated"), "--gate", "off"]) == 0
    assert "Changed 6 of 6 frames" in capsys.readouterr().err


def test_a_folder_of_photos_is_chosen_from(
    clip: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for number, rgb in enumerate(read_frames(clip)):
        if number in (1, 4):
            Image.fromarray(rgb).save(tmp_path / "photos" / f"p{number}.png")
    given = ["--input", str(clip), "--reference", str(tmp_path / "photos"), "--model", checkpoint]
    out = tmp_path / "fixed.mp4"
    options = ["--reference-by", "similarity", "--num-references", "2"]
    assert main([*given, "--out", str(out), *options]) == 0
    assert "References are chosen by similarity, see" in capsys.readouterr().err
    images = json.loads((tmp_path / "fixed.references.json").read_text())["images"]
    assert [images[number]["references"][0] for number in (1, 4)] == ["photos/p1.png", "photos/p4.png"]
    assert [len(entry["references"]) for entry in images] == [2] * 6
    assert main([*given, "--out", str(out), "--reference-by", "order"]) == 2
    assert "to go by order there must be as many" in capsys.readouterr().err


def test_ctrl_c_says_what_is_there_and_how_to_go_on(
    clip: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fixed.mp4"
    given = ["--input", str(clip), "--out", str(out), "--model", checkpoint, "--device", "cpu", "--batch-size", "1"]
    call, calls = DifixPipeline.fix_images, itertools.count()

    def stopped(pipeline: DifixPipeline, *arguments: Any, **options: Any) -> Any:
        if next(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return call(pipeline, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DifixPipeline, "fix_images", stopped)
        assert main(given) == 128 + signal.SIGINT
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("Stopped: ")
    assert "holds the first 4 of 6 frames" in said
    assert len(list(read_frames(out))) == 4
    assert main([*given, "--resume", "--strength", "0.5"]) == 2
    assert "another strength" in capsys.readouterr().err
    assert main([*given, "--resume"]) == 0
    assert len(list(read_frames(out))) == 6


def test_bad_input_is_one_sentence_and_exit_code_2(
    clip: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.mp4")
    Image.new("RGB", (20, 20)).save(tmp_path / "image.png")
    out = str(tmp_path / "out.mp4")
    refused = [
        (["--input", str(tmp_path / "image.mp4"), "--out", out], "is an image"),
        (["--input", str(tmp_path / "absent.mp4"), "--out", out], "does not exist"),
        (["--input", str(clip), "--out", str(clip)], "would be overwritten"),
        (["--input", str(clip), "--out", out, "--fps", "5"], "frame rate of its own"),
        (["--input", str(tmp_path / "image.png"), "--out", out.replace("mp4", "png"), "--steady"], "--steady is for"),
    ]
    for arguments, words in refused:
        assert main([*arguments, "--model", checkpoint]) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        assert error[0].startswith("error: ")
        assert words in error[0]
    assert not Path(out).exists()
