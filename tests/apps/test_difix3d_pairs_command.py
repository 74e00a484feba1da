"""The command difix3d-pairs: what it writes, how it goes on, and how it refuses."""

from pathlib import Path

import pytest

from difix3d_pairs_app.__main__ import main
from difix_model.pairs import read_pairs

QUICK = [
    "--max-size", "48", "--num-views", "6", "--max-steps", "10", "--sparse-at", "1.0", "--underfit-at", "1.0",
    "--targets-per-render", "1", "--strategies", "sparse", "painted",
]  # fmt: skip


def test_it_makes_pairs_and_keeps_what_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--generated", "1", "--first-seed", "7", "--out", str(tmp_path / "pairs"), *QUICK]
    assert main(command) == 0
    assert capsys.readouterr().out.strip().endswith("pairs.json")
    records = read_pairs(tmp_path / "pairs" / "pairs.json")
    assert len(records) == 1 + 2 * 6
    stamp = records[0].image.stat().st_mtime_ns
    assert main([*command, "--generated", "2"]) == 0
    grown = read_pairs(tmp_path / "pairs" / "pairs.json")
    assert len(grown) == 2 * len(records)
    assert grown[0].image.stat().st_mtime_ns == stamp


def test_bad_input_is_one_sentence_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenes", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "nowhere" in error
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "out")])
    assert stop.value.code == 2
