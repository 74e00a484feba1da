"""`sparsefusion reconstruct`: what it writes, how it goes on, and what it says about bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsefusion.checkpoints import load_field
from sparsefusion_app.__main__ import main
from splat_render import read_ply

SMALL = [
    "--image-size",
    "32",
    "--render-size",
    "16",
    "--samples",
    "8",
    "--circle-frames",
    "2",
    "--splat-resolution",
    "12",
    "--device",
    "cpu",
]


def run(out: Path, *flags: str) -> int:
    return main(["reconstruct", "--out", str(out), "--max-steps", "4", *SMALL, *flags])


def test_a_run_writes_its_results_and_a_stopped_one_goes_on_bit_for_bit(tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(whole) == 0
    assert run(parts, "--stop-at", "3") == 0
    assert not (parts / "report.html").exists()
    assert run(parts, "--resume") == 0
    fields = [load_field(folder / "field.pt").state_dict() for folder in (whole, parts)]
    assert all(torch.equal(value, fields[1][name]) for name, value in fields[0].items())
    scores = json.loads((whole / "metrics.json").read_text())["scores"]
    assert set(scores) == {"held_out/field", "held_out/nearest_input", "input/field"}
    assert scores == json.loads((parts / "metrics.json").read_text())["scores"]
    assert len(list((whole / "field").glob("*.png"))) == 8
    assert (whole / "circle.gif").stat().st_size > 0
    assert (whole / "circle.mp4").stat().st_size > 0
    page = (whole / "report.html").read_text()
    assert all(f"field/{path.name}" in page for path in (whole / "field").glob("*.png"))
    assert len(read_ply(whole / "splat.ply")) > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--views", "1"], "1 input photo is not enough"),
        (["--views", "9"], "has only 8 photos"),
        (["--inputs", "0", "30"], "photos [30] are not there"),
        (["--scene", "nowhere"], "nowhere is not a folder"),
        (["--dataset", "co3d", "--root", "nowhere"], "nowhere has no category hydrant"),
        (["--dataset", "co3d-toy", "--root", "nowhere"], "hydrant_toy.pt is missing"),
        (["--eft", "nothing.pt"], "nothing.pt is missing"),
        (["--model", "nothing.safetensors"], "nothing.safetensors is missing"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
):
    assert run(tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1


def test_a_run_is_not_mixed_into_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path / "out", "--stop-at", "1") == 0
    assert run(tmp_path / "out") == 2
    assert "holds a run" in capsys.readouterr().err
    assert run(tmp_path / "out", "--resume", "--seed", "5") == 2
    assert "other values of seed" in capsys.readouterr().err
