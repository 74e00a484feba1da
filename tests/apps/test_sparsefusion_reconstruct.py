"""`sparsefusion reconstruct`: what it writes, how it goes on, and what it says about bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsefusion import EftConfig, ModelConfig, UNetConfig, VaeConfig, build_model, load_field, load_model, save_model
from sparsefusion.checkpoints import EMBEDDED_MODEL
from sparsefusion.data.toy import load_tensors
from sparsefusion_app.__main__ import main
from splat_render import read_ply

TINY = ModelConfig(
    eft=EftConfig(encoder_width=4, encoder_tail=False, hidden=8, num_layers=1, num_depths=4, depth_margin=2.0),
    unet=UNetConfig(dim=8, dim_mults=(1, 2), num_resnet_blocks=1, cond_channels=8, num_heads=2, head_dim=8),
    vae=VaeConfig(block_channels=(8, 8, 8), norm_groups=4),
    image_size=32,
)
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


def run(out: Path, *flags: str, model: str = "none") -> int:
    networks = [] if "--eft" in flags else ["--model", model]
    return main(["reconstruct", "--out", str(out), "--max-steps", "4", *SMALL, *networks, *flags])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks without training, in one file."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    save_model(build_model(TINY), path)
    return path


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


def test_the_whole_method_is_compared_with_its_parts_and_goes_on_bit_for_bit(tmp_path: Path, model: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ("--compare", "yes", "--sampling-steps", "2")
    assert run(whole, *flags, model=str(model)) == 0
    assert run(parts, *flags, "--stop-at", "3", model=str(model)) == 0
    assert run(parts, *flags, "--resume", model=str(model)) == 0
    scores = json.loads((whole / "metrics.json").read_text())["scores"]
    kinds = {"nearest_input", "inputs_only", "transformer", "diffusion", "field"}
    assert {name.removeprefix("held_out/") for name in scores if name.startswith("held_out/")} == kinds
    assert all(0 <= values["flip"] <= 1 for values in scores.values())
    assert scores == json.loads((parts / "metrics.json").read_text())["scores"]
    page = (whole / "report.html").read_text()
    assert all(f"{kind}/000_000.png" in page for kind in kinds)
    alone, together = (load_tensors(whole / name) for name in ("state_inputs_only.pt", "state.pt"))
    assert alone["history"]["input"][0] == together["history"]["input"][0]
    assert not alone["history"]["cached"]
    assert len(together["history"]["cached"]) == 4


def test_networks_say_which_images_they_take(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path / "out", "--image-size", "64", model=str(model)) == 2
    assert "the networks take images of 32 pixels" in capsys.readouterr().err


def test_the_networks_that_come_along_are_small_and_know_their_mode():
    assert EMBEDDED_MODEL.stat().st_size < 20e6
    assert load_model(EMBEDDED_MODEL).config.eft_mode in ("train", "eval")


def test_a_run_is_not_mixed_into_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path / "out", "--stop-at", "1") == 0
    assert run(tmp_path / "out") == 2
    assert "holds a run" in capsys.readouterr().err
    assert run(tmp_path / "out", "--resume", "--seed", "5") == 2
    assert "other values of seed" in capsys.readouterr().err
