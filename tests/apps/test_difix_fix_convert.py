"""`difix-fix convert` and the dispatch of `difix-fix`, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from difix_fix.__main__ import COMMANDS, main
from difix_model.formats.sources import load_source


def test_convert_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pkl, ours = tmp_path / "model_0.pkl", tmp_path / "deep" / "ours"
    assert main(["convert", "--source", "default", "--to", "pkl", "--out", str(pkl)]) == 0
    assert capsys.readouterr().out.strip() == str(pkl)
    assert main(["convert", "--source", str(pkl), "--to", "safetensors", "--out", str(ours), "--dtype", "float16"]) == 0
    expected, actual = load_source("default"), load_source(ours)
    assert actual.metadata == expected.metadata
    assert (ours / "README.md").is_file()
    again = actual.network.merge_lora().state_dict()
    assert all(value.equal(again[name]) for name, value in expected.network.state_dict().items())


def test_bad_conversions_are_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    refused = [
        (["--source", "default", "--to", "diffusers", "--out", out], "holds a text encoder"),
        (["--source", "default", "--to", "pkl", "--out", out], "must end in .pkl"),
        (["--source", str(tmp_path / "a" / "b" / "c"), "--to", "safetensors", "--out", out], "no weights at"),
        (["--source", "default", "--to", "safetensors", "--out", str(Path(__file__))], "exists: give another place"),
    ]
    for arguments, message in refused:
        assert main(["convert", *arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error
    with pytest.raises(SystemExit) as stop:
        main(["convert", "--source", "default"])
    assert stop.value.code == 2


def test_fixing_needs_no_name_and_takes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", str(tmp_path / "absent.png"), "--out", str(tmp_path / "out")]
    said = []
    for given in (arguments, ["fix", *arguments]):
        assert main(given) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)
