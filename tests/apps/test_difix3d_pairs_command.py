"""The command difix3d-pairs: what it writes, how it goes on, and how it refuses."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from difix3d_pairs_app.__main__ import main
from difix_model import read_pairs

QUICK = [
    "--max-size", "48", "--num-views", "6", "--max-steps", "10", "--sparse-at", "1.0", "--underfit-at", "1.0",
    "--targets-per-render", "1", "--strategies", "sparse", "corrupted",
]  # fmt: skip


def test_it_makes_pairs_and_keeps_what_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--generated", "1", "--first-seed", "7", "--out", str(tmp_path / "pairs"), *QUICK]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.strip().endswith("pairs.json")
    assert "corrupted: 12 pairs" in printed
    assert "left out: none" in printed
    records = read_pairs(tmp_path / "pairs" / "pairs.json")
    assert len(records) == 1 + 2 * 6
    assert "13 pairs of 1 scenes" in (tmp_path / "pairs" / "CARD.md").read_text(encoding="utf-8")
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
    for wrong in (["--out", "x"], ["--out", "x", "--generated", "1", "--num-processes", "0"], ["merge", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
    assert main(["--generated", "1", "--out", str(tmp_path / "out"), "--test-scenes", "elsewhere"]) == 2
    assert "elsewhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failing_scene_is_listed_and_the_exit_code_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["--scenes", str(tmp_path / "empty"), "--generated", "1", "--out", str(tmp_path / "out"), *QUICK]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "\nfailed: empty: " in printed.err
    assert "Traceback" not in printed.err
    assert len(read_pairs(tmp_path / "out" / "pairs.json")) == 13
    assert list(json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))["failed"]) == ["empty"]


def test_folders_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", "7"), ("b", "8")):
        corrupted = [*QUICK[:-3], "--strategies", "corrupted"]
        assert main(["--generated", "1", "--first-seed", seed, "--out", str(tmp_path / name), *corrupted]) == 0
    merged = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c")]
    assert main(merged) == 0
    assert capsys.readouterr().out.strip().endswith(str(tmp_path / "c" / "pairs.json"))
    assert len(read_pairs(tmp_path / "c" / "pairs.json")) == 24
    assert main([*merged[:2], *merged[3:-1], str(tmp_path / "d")]) == 2
    assert "two or more" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def contents(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_with_two_processes_it_goes_on_to_the_same_files(tmp_path: Path, how: signal.Signals) -> None:
    options = ["--generated", "6", *QUICK, "--max-steps", "60"]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "difix3d_pairs_app", *options, "--num-processes", "2", "--out", str(out)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        while not list(out.glob("generated_*/scene.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(how)
        assert running.wait(timeout=120) == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(how, -how)
    finally:
        running.kill()
        running.wait()
    assert 1 <= len(list(out.glob("generated_*/scene.json"))) < 6
    if how != signal.SIGKILL:
        assert not list(out.glob(".*"))
    # In this process only, as the files do not depend on it.
    assert main([*options, "--out", str(out)]) == 0
    assert main([*options, "--out", str(tmp_path / "alone")]) == 0
    assert contents(out) == contents(tmp_path / "alone")
