"""`difix-fix` end to end on a tiny checkpoint, in this process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix_fix.__main__ import main
from difix_model.jobs import fix_files
from media_files import open_image, save_image


@pytest.fixture
def renders(tmp_path: Path) -> Path:
    for name, size in (("a.png", (40, 24)), ("b.png", (31, 17)), ("c.jpg", (40, 24))):
        path = tmp_path / "renders" / name
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "renders"


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip().splitlines()[-1]


def test_one_image(renders: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "fixed.png"
    given = ["--input", str(renders / "b.png"), "--out", str(out), "--model", checkpoint, "--device", "cpu"]
    assert main(given) == 0
    assert last_line(capsys) == str(out)
    assert open_image(out).size == (31, 17)
    assert main([*given[:3], str(tmp_path / "weak.png"), *given[4:], "--strength", "0"]) == 0
    assert "Nothing was changed" in capsys.readouterr().err
    assert np.array_equal(np.asarray(open_image(tmp_path / "weak.png")), np.asarray(open_image(renders / "b.png")))


def test_a_folder_with_references(
    renders: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fixed"
    given = ["--input", str(renders), "--out", str(out), "--model", checkpoint, "--reference", str(renders)]
    assert main([*given, "--batch-size", "2"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "Changed 0 of 3 images; 3 kept: its colors move away from the reference photo's" in said.err
    assert (out / "references.json").is_file()
    assert {path.name: open_image(path).size for path in out.iterdir() if path.suffix != ".json"} == {
        path.name: open_image(path).size for path in renders.iterdir()
    }


def test_bad_input_is_one_sentence_and_exit_code_2(
    renders: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = str(renders / "a.png"), str(tmp_path / "out")
    cut = tmp_path / "cut.png"
    cut.write_bytes((renders / "b.png").read_bytes()[:-200])
    refused = [
        (["--input", str(tmp_path / "absent.png"), "--out", out], "does not exist"),
        (["--input", image, "--out", image], "overwritten"),
        (["--input", image, "--out", out, "--model", str(tmp_path / "no" / "such" / "model")], "no weights at"),
        (["--input", image, "--out", out, "--model", str(renders)], "neither a checkpoint folder"),
        (["--input", image, "--out", str(renders / "a.png" / "x"), "--model", checkpoint], "cannot write"),
        (["--input", image, "--out", out, "--model", checkpoint, "--reference", out], "does not exist"),
        # Said before weights are looked for.
        (["--input", image, "--out", str(renders / "a.png" / "x"), "--model", "no/such"], "cannot write"),
        (["--input", str(cut), "--out", out, "--model", "no/such"], "cannot be read"),
    ]
    for arguments, message in refused:
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error
        assert "Traceback" not in error
    assert not Path(out).exists()


def test_bad_options_exit_with_2(renders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--strength", "2"], ["--device", "abacus"]):
        with pytest.raises(SystemExit) as stop:
            main(["--input", str(renders), *(["--out", "x", *options] if options else [])])
        assert stop.value.code == 2
        assert capsys.readouterr().err


def test_references_are_chosen_written_down_and_given_back(
    renders: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, name in enumerate(("x.png", "y.png", "z.png", "w.png")):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 24)).save(photos / name)
    given = ["--input", str(renders), "--out", str(tmp_path / "one"), "--model", checkpoint, "--reference"]
    assert main([*given, str(photos), "--num-references", "2"]) == 0
    assert "by similarity" in capsys.readouterr().err
    chosen = json.loads((tmp_path / "one" / "references.json").read_text())
    assert [len(entry["references"]) for entry in chosen["images"]] == [2, 2, 2]
    again = [*given, str(tmp_path / "one" / "references.json")]
    again[3] = str(tmp_path / "two")
    assert main(again) == 0
    for name in ("a.png", "b.png"):
        first, second = (np.asarray(open_image(tmp_path / folder / name)) for folder in ("one", "two"))
        np.testing.assert_array_equal(first, second)
    assert main([*given, str(photos), "--reference-by", "order"]) == 2
    assert "4 references" in capsys.readouterr().err


def test_a_mask_restricts_and_the_weight_is_written(renders: Path, tmp_path: Path, checkpoint: str) -> None:
    mask = np.zeros((24, 40), dtype=np.uint8)
    mask[:, 20:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out, weights = tmp_path / "out.png", tmp_path / "weights"
    given = ["--input", str(renders / "a.png"), "--out", str(out), "--model", checkpoint, "--gate", "off"]
    assert main([*given, "--mask", str(tmp_path / "mask.png"), "--write-mask", str(weights)]) == 0
    before, after = np.asarray(open_image(renders / "a.png")), np.asarray(open_image(out))
    np.testing.assert_array_equal(after[:, :20], before[:, :20])
    assert (after[:, 20:] != before[:, 20:]).mean() > 0.5
    written = np.asarray(open_image(weights / "a.png"))
    assert not written[:, :20].any()
    assert written[:, 20:].min() > 250


def test_broken_files_are_left_out_on_demand_and_named(
    renders: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (renders / "b.png").write_bytes(b"\x89PNG")
    given = ["--input", str(renders), "--out", str(tmp_path / "out"), "--model", checkpoint]
    assert main(given) == 2
    assert "b.png cannot be read" in capsys.readouterr().err
    assert main([*given, "--skip-broken"]) == 2
    assert "1 left out" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.jpg"]


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (signal.SIGTERM, 143)])
def test_a_stopped_folder_goes_on_where_it_was(
    stop: type[BaseException] | signal.Signals,
    code: int,
    renders: Path,
    tmp_path: Path,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved, real = [], save_image

    def stopped(path: Path, image: Image.Image) -> None:
        if len(saved) == 1:
            if isinstance(stop, signal.Signals):
                os.kill(os.getpid(), stop)
            else:
                raise stop
        saved.append(path.name)
        real(path, image)

    monkeypatch.setattr(fix_files, "save_image", stopped)
    given = ["--input", str(renders), "--out", str(tmp_path / "out"), "--model", checkpoint, "--batch-size", "1"]
    assert main(given) == code
    assert "Stopped: 1 of 3 images" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    first = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    monkeypatch.setattr(fix_files, "save_image", real)
    assert main([*given, "--resume"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.jpg"]
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == first
    assert main([*given, "--resume"]) == 0
    assert "3 images are finished already" in capsys.readouterr().err


def test_a_disk_that_fills_up_keeps_what_is_finished(
    renders: Path,
    tmp_path: Path,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Image.Image.save

    def full(self: Image.Image, path: Path, *rest: object, **options: object) -> None:
        if "b.partial" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(self, path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "save", full)
    given = ["--input", str(renders), "--out", str(tmp_path / "out"), "--model", checkpoint, "--batch-size", "1"]
    assert main(given) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left on device; the 1 images finished before are kept" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
