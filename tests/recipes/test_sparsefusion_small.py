"""The recipe of a small SparseFusion runs from nothing to weights that reconstruct, and goes on where it stood."""

from __future__ import annotations

import json

from sparsefusion import load_model
from sparsefusion_small.__main__ import main
from sparsefusion_small.judging import SAMPLED_TIMES


def test_a_few_steps_end_in_weights(tmp_path, capsys):
    command = ["--out", str(tmp_path), "--steps", "1", "1", "1", "1", "--num-objects", "8", "--num-judged", "1"]
    main(command)
    weights = tmp_path / "weights" / "model.safetensors"
    assert capsys.readouterr().out.splitlines()[-1] == str(weights)
    assert weights.stat().st_size < 20e6
    figures = json.loads((tmp_path / "figures.json").read_text())
    samples = {f"psnr_samples_from_{time}" for time in SAMPLED_TIMES}
    assert set(figures) == {"psnr_nearest_input", "psnr_eft_eval", "psnr_eft_train", "psnr_vae", *samples}
    mode = "train" if figures["psnr_eft_train"] > figures["psnr_eft_eval"] else "eval"
    assert load_model(weights).config.eft_mode == mode
    denoiser = tmp_path / "denoiser" / "model" / "model.safetensors"
    before = denoiser.stat().st_mtime_ns
    main(command)
    assert denoiser.stat().st_mtime_ns == before
