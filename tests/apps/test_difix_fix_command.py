"""`difix-fix` end to end on a tiny checkpoint, in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix_fix.__main__ import main
from difix_model.checkpoint import save_checkpoint
from difix_model.config import tiny_config
from difix_model.files import open_image
from difix_model.network import DifixNetwork


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    network = DifixNetwork(tiny_config())
    save_checkpoint(folder, network, text_embedding=torch.zeros(3, 16), prompt="remove degradation")
    return str(folder)


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
    assert np.array_equal(np.asarray(open_image(tmp_path / "weak.png")), np.asarray(open_image(renders / "b.png")))


def test_a_folder_with_references(
    renders: Path, tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fixed"
    given = ["--input", str(renders), "--out", str(out), "--model", checkpoint, "--reference", str(renders)]
    assert main([*given, "--batch-size", "2"]) == 0
    assert last_line(capsys) == str(out)
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
