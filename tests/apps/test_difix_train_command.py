"""The command difix-train, in this process: a run with stop and resume, eval, and every kind of bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from difix_model import DifixPipeline
from difix_train_app.__main__ import main
from support.noise_pairs import write_noise_pairs

RUN = ["--preset", "tiny", "--height", "32", "--width", "32", "--lpips-weight", "0", "--gram-weight", "0"]
PROMPT = "remove degradation"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_noise_pairs(tmp_path, side=32, width=40, prompt=PROMPT, num_train=2, num_test=2)


def test_run_stops_resumes_and_is_measured(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run = ["run", "--pairs", str(pairs), "--out", str(out), *RUN, "--max-steps", "4", "--checkpoint-every", "2"]
    assert main([*run, "--stop-at", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "checkpoints" / "step_000002")
    assert main(run) == 2
    assert "already holds a run: set resume" in capsys.readouterr().err
    assert main([*run, "--learning-rate", "1", "--resume"]) == 2
    assert "optimizer.learning_rate was 2e-05, now 1.0" in capsys.readouterr().err
    assert main([*run, "--resume"]) == 0
    whole = tmp_path / "whole"
    assert main([*run[:4], str(whole), *run[5:]]) == 0
    assert (whole / "metrics.json").read_text() == (out / "metrics.json").read_text()
    shown = capsys.readouterr().out.replace(str(whole / "model"), str(out / "model"))
    assert shown.splitlines()[-1] == str(out / "model")
    assert all(row in shown for row in ("input", "right reference", "wrong reference", "no reference"))
    assert json.loads((out / "config.json").read_text())["settings"]["config"]["max_steps"] == 4

    # As after a kill between the last checkpoint and the network.
    shutil.rmtree(out / "model")
    assert main([*run, "--resume"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "model")
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (whole / weights).read_bytes()
    pipeline = DifixPipeline.from_pretrained(out / "model")
    image = np.random.default_rng(1).random((32, 32, 3), dtype=np.float32)
    for place in (out, out / "checkpoints" / "step_000004"):
        np.testing.assert_array_equal(DifixPipeline.from_pretrained(place)(image), pipeline(image))

    result = tmp_path / "eval.json"
    assert main(["eval", "--model", str(out / "model"), "--pairs", str(pairs), "--out", str(result)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(result)
    assert set(json.loads(result.read_text())["after"]) == {"right", "wrong", "none"}


def test_bad_input_is_told_in_a_sentence(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "image_0.png").rename(tmp_path / "elsewhere.png")
    broken = ["run", "--pairs", str(pairs)]
    good = tmp_path / "good.json"
    values = json.loads(pairs.read_text())
    del values["train"]["pair_0"]
    good.write_text(json.dumps(values))
    fine = ["run", "--pairs", str(good)]
    cut = tmp_path / "image_3.png"
    cut.write_bytes(cut.read_bytes()[:1000])
    (tmp_path / "cut.json").write_text(json.dumps({"train": {"c": values["test"].pop("pair_3")}}))
    good.write_text(json.dumps(values))
    cases = [
        (["run", "--pairs", str(tmp_path / "cut.json"), "--out", "o", *RUN], "image_3.png"),
        (["eval", "--pairs", str(good), "--size", "7", "8"], "multiple of 8"),
        (["eval", "--pairs", str(good), "--out", str(tmp_path)], "is a folder"),
        ([*broken, "--out", "o", *RUN], "image_0.png"),
        ([*fine, "--out", str(tmp_path / "file" / "out"), *RUN], "cannot write to"),
        ([*fine, "--out", "o", "--preset", "huge"], "no preset 'huge'"),
        ([*fine, "--out", "o", "--model", "a", "--base", "b"], "--base"),
        ([*fine, "--out", "o", *RUN, "--lora-rank", "4"], "--lora-rank takes effect only with --base"),
        ([*fine, "--out", "o", "--model", "default", "--lora-rank", "2"], "--lora-rank takes effect only with --base"),
        ([*fine, "--out", "o", *RUN, "--reference-attention", "True"], "whether views attend to each other"),
        (
            [*fine, "--out", "none", *RUN[2:], "--model", "default", "--reference-attention", "False"],
            "whether views attend to each other",
        ),
        (["run", "--pairs", str(tmp_path / "absent.json"), "--out", "o", *RUN], "absent.json"),
        (["eval", "--pairs", str(good), "--split", "train", "--max-samples", "0"], "--max-samples"),
        (["eval", "--pairs", str(good), "--model", str(tmp_path / "absent")], "absent"),
        ([*fine, "--out", str(tmp_path / "none"), *RUN[2:], "--model", "no/such/weights"], "no/such/weights"),
    ]
    for arguments, expected in cases:
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: "), error
        assert expected in error
        assert "Traceback" not in error
    assert not Path("none").exists()
    assert not (tmp_path / "none").exists()


def test_adapters_are_trained_and_exported(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "adapters"
    lora = ["lora", "--pairs", str(pairs), "--out", str(out), *RUN, "--unet-lora-rank", "2", "--max-steps", "1"]
    assert main(lora) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "model")
    config = json.loads((out / "config.json").read_text())["settings"]["config"]
    assert (config["trainable"], config["precision"], config["gradient_checkpointing"]) == ("lora", "bfloat16", True)
    assert config["data"]["num_workers"] == 2
    image = np.random.default_rng(1).random((32, 32, 3), dtype=np.float32)
    expected = DifixPipeline.from_pretrained(out / "model")(image)
    for form, name in (("safetensors", "ours"), ("pkl", "model_1.pkl")):
        target = tmp_path / name
        assert main(["export", "--run", str(out), "--to", form, "--out", str(target)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(target)
        np.testing.assert_allclose(DifixPipeline.from_pretrained(target)(image), expected, atol=1e-5)
    nothing = ["--run", str(pairs.parent / "nothing"), "--out", str(tmp_path / "no")]
    assert main(["export", *nothing, "--to", "safetensors"]) == 2
    assert "holds no trained network" in capsys.readouterr().err


def test_a_run_that_ended_before_its_first_checkpoint_can_be_started_again(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["run", "--pairs", str(pairs), "--out", str(out), *RUN, "--max-steps", "1"]
    # One line for a job that is killed and started again: nothing was begun yet.
    assert main([*argv, "--resume"]) == 0
    shutil.rmtree(out / "checkpoints")
    shutil.rmtree(out / "model")
    assert (out / "config.json").is_file()
    assert main(argv) == 0
    assert (out / "model").is_dir()


def test_values_out_of_range_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--pairs", "p", "--out", "o", "--height", "7"])
    assert stop.value.code == 2
    assert "height must be a positive" in capsys.readouterr().err
