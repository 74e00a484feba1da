"""The command for the first day with a GPU: rehearsed whole on the fake device; nothing that was measured is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import first_gpu_run  # pyright: ignore[reportMissingImports]
from first_gpu_parts import PARTS, Report, Sizes  # pyright: ignore[reportMissingImports]


def test_the_whole_day_is_rehearsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # Losing sight of a failure here would cost the first minutes on a real device.
    code = first_gpu_run.main(["--out", str(tmp_path), "--rehearse", "--minutes", "100"])
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    logs = [path.read_text() for path in tmp_path.glob("*.log")]
    assert [outcome["what"] for outcome in outcomes] == ["done"] * len(PARTS), logs
    assert code == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'tables.md'}\n")
    tables = (tmp_path / "tables.md").read_text()
    assert [line.split()[1].rstrip(":") for line in tables.splitlines() if line.startswith("###")] == list(PARTS)
    rows = {name: json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in PARTS}
    assert all(rows.values())
    assert not any("failed" in row for part in rows.values() for row in part)
    assert all(row["largest"] < 1e-3 for row in rows["parity"]), "gsplat's pictures are those of the CPU"
    for row in rows["training"]:
        assert row["CUDA"] == pytest.approx(row["first loss, CPU"], rel=1e-3)
    assert {row["loop"] for row in rows["steps"]} >= {"SplatTrainer", "bare gsplat loop, our SSIM"}


def test_rows_are_kept_when_a_part_fails_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def breaks(sizes: Sizes, report: Report) -> None:
        report.row(what="measured before", value=1.5)
        raise RuntimeError("no kernel image is available")

    def works(sizes: Sizes, report: Report) -> None:
        report.row(what="measured after", value=2.5)

    parts = {"parity": breaks, "steps": works}
    monkeypatch.setattr(first_gpu_run, "PARTS", parts)
    outcomes = first_gpu_run.run_all([*parts], tmp_path, 1.0, first_gpu_run.in_this_process)
    assert [outcome.what for outcome in outcomes] == ["failed", "done"]
    tables = (tmp_path / "tables.md").read_text()
    assert "measured before | 1.5" in tables
    assert "measured after | 2.5" in tables
    assert "no kernel image is available" in (tmp_path / "parity.log").read_text()


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path):
    outcomes = first_gpu_run.run_all(["parity", "steps"], tmp_path, 0.0, lambda *_: "done")
    assert [outcome.what for outcome in outcomes] == ["not begun", "not begun"]
    assert "parity: not begun" in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize(
    ("program", "seconds", "what"),
    [
        ("print('fine')", 60, "done"),
        ("raise SystemExit(3)", 60, "failed"),
        ("import time; time.sleep(60)", 1, "over time"),
    ],
)
def test_a_part_may_fail_or_hang(program: str, seconds: float, what: str, tmp_path: Path):
    assert first_gpu_run.run_limited([sys.executable, "-c", program], tmp_path / "log", seconds) == what
    assert "fine" in (tmp_path / "log").read_text() or what != "done"
