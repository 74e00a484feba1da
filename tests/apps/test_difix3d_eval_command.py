"""The command difix3d-eval: tables of scores, and the refusal to mix protocols."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix3d_eval_app.__main__ import main


def test_scores_and_comparisons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    for part in (tmp_path / "scenes" / "art" / "images", tmp_path / "renders" / "art"):
        part.mkdir(parents=True)
        Image.fromarray(photo).save(part / "frame_1_00000.png")
    arguments = ["score", "--renders", str(tmp_path / "renders"), "--scenes", str(tmp_path / "scenes"), "--no-masked"]
    for method in ("one", "two"):
        assert main([*arguments, "--method", method, "--out", str(tmp_path / method)]) == 0
    assert capsys.readouterr().out.strip().endswith("scores.html")
    files = [str(tmp_path / method / "scores.json") for method in ("one", "two")]
    assert main(["compare", "--scores", *files, "--out", str(tmp_path / "both")]) == 0
    content = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert set(content["methods"]) == {"one", "two"}
    other = json.loads(Path(files[1]).read_text())
    other["identity"]["masked"] = True
    Path(files[1]).write_text(json.dumps(other))
    assert main(["compare", "--scores", *files, "--out", str(tmp_path / "both")]) == 2
    assert "different protocols: masked (False against True)" in capsys.readouterr().err
    assert main([*arguments, "--protocol", "unknown", "--out", str(tmp_path / "x")]) == 2


@pytest.mark.slow
def test_the_ablation_has_all_rows(tmp_path: Path) -> None:
    arguments = ["ablation", "--out", str(tmp_path / "out"), "--max-steps", "20", "--max-size", "64", "--frames", "3"]
    arguments += ["--gate", "off"]
    assert main([*arguments, "--num-rounds", "2", "--num-novel", "2", "--max-gaussians", "500"]) == 0
    rows = json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]
    assert list(rows) == ["plain", "fix only", "one shot", "progressive", "progressive + final fix"]
    assert all(0 <= row["consistency"]["consistent_fraction"] <= 1 for row in rows.values())
    assert rows["plain"]["psnr"] != rows["progressive"]["psnr"]
    assert (tmp_path / "out" / "ablation.html").is_file()


@pytest.mark.slow
def test_the_ablation_over_seeds_keeps_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--max-steps", "20", "--max-size", "64", "--num-rounds", "2", "--num-novel", "2", "--max-gaussians", "500"]
    arguments = ["ablation", "--out", str(tmp_path), "--frames", "0", "--model", "none", *short]
    assert main([*arguments, "--seeds", "1"]) == 0
    metrics = tmp_path / "seed_1" / "progressive" / "metrics.json"
    before = metrics.stat().st_mtime_ns
    assert main([*arguments, "--seeds", "1", "2"]) == 0
    assert metrics.stat().st_mtime_ns == before
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["seeds"] == [1, 2]
    row = content["rows"]["progressive"]
    each = [row["by_seed"][seed]["psnr"] for seed in ("1", "2")]
    assert row["psnr"] == pytest.approx(sum(each) / 2)
    assert row["spread"]["psnr"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    assert content["rows"]["plain"]["gain"] == content["rows"]["plain"]["spread"]["gain"] == 0
    page = (tmp_path / "ablation.html").read_text(encoding="utf-8")
    assert "Mean over the seeds 1, 2" in page
    assert "±" in page
    capsys.readouterr()
    assert main([*arguments, "--seeds", "1", "1"]) == 2
    assert "every seed counts once" in capsys.readouterr().err
