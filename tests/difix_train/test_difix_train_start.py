"""Where a run may start: SD-Turbo, published weights with or without references, and a checkpoint of ours."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from difix_model import DifixPipeline, load_checkpoint
from difix_model.config import PROMPT
from difix_train import (
    DataConfig,
    InputError,
    LossConfig,
    RunSettings,
    TrainConfig,
    TrainingRun,
    open_run,
    start_from_model,
)
from support.noise_pairs import write_noise_pairs

SIDE = 64
QUICK = TrainConfig(
    max_steps=1,
    validate_every=0,
    loss=LossConfig(lpips_weight=0.0, gram_weight=0.0),
    data=DataConfig(height=SIDE, width=SIDE),
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_pairs(tmp_path_factory.mktemp("pairs"), side=SIDE, prompt=PROMPT, num_train=1)


def _finished(settings: RunSettings) -> TrainingRun:
    run = open_run(settings)
    while not run.done:
        run.advance()
    return run


@pytest.mark.reference
@pytest.mark.parametrize(("asked", "rank", "attends"), [(None, None, True), (False, 3, False)])
def test_a_run_from_sd_turbo(
    pairs: Path, tmp_path: Path, reference_data: Path, asked: bool | None, rank: int | None, attends: bool
) -> None:
    base = str(reference_data / "hf_repo_tiny")
    settings = RunSettings(
        pairs=pairs, out=tmp_path, base=base, lora_rank=rank, reference_attention=asked, config=QUICK
    )
    run = _finished(settings)
    config = load_checkpoint(tmp_path / "model").network.config
    assert config.reference_attention == attends
    assert config.vae.lora_rank == (rank or 4)
    assert run.task.metadata.uses_reference == attends
    assert any("lora" in name for name in run.task.trained)
    fixed = DifixPipeline.from_pretrained(tmp_path / "model")(np.zeros((SIDE, SIDE, 3), dtype=np.float32))
    assert np.isfinite(fixed).all()


@pytest.mark.reference
def test_published_weights_without_references_learn_to_use_them_when_asked(
    pairs: Path, tmp_path: Path, reference_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A layout whose index names diffusers' own UNet is the variant whose views do not attend to each other."""
    layout = tmp_path / "difix"
    shutil.copytree(reference_data / "hf_repo_tiny", layout)
    index = json.loads((layout / "model_index.json").read_text())
    index["unet"] = ["diffusers", "UNet2DConditionModel"]
    (layout / "model_index.json").write_text(json.dumps(index))
    settings = RunSettings(pairs=pairs, out=tmp_path / "plain", model=str(layout), config=QUICK)
    assert not open_run(settings).task.network.config.reference_attention
    assert "--reference-attention True" in caplog.text
    caplog.clear()
    _finished(dataclasses.replace(settings, out=tmp_path / "asked", reference_attention=True))
    assert "--reference-attention" not in caplog.text
    saved = load_checkpoint(tmp_path / "asked" / "model")
    assert saved.network.config.reference_attention
    assert saved.metadata.uses_reference is True


def test_a_run_from_a_checkpoint_of_ours_goes_on_from_its_weights(pairs: Path, tmp_path: Path) -> None:
    first = RunSettings(pairs=pairs, out=tmp_path / "first", preset="tiny", config=QUICK)
    _finished(first)
    model = str(first.out / "model")
    second = dataclasses.replace(first, out=tmp_path / "second", preset=None, model=model)
    run = open_run(second)
    before = load_checkpoint(first.out / "model")
    expected = before.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in run.task.network.state_dict().items())
    assert run.step == 0
    run.advance()
    after = load_checkpoint(second.out / "model")
    assert torch.equal(after.text_embedding, before.text_embedding)
    moved = [name for name, value in after.network.state_dict().items() if not torch.equal(value, expected[name])]
    assert set(moved) == set(run.task.trained)
    with pytest.raises(InputError, match="says itself whether views attend"):
        open_run(dataclasses.replace(second, out=tmp_path / "third", reference_attention=True))
    with pytest.raises(InputError, match="says itself whether views attend"):
        start_from_model(model, reference_attention=False)
