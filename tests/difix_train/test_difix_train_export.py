"""A trained network is written in every form, and difix-model opens each with the same result."""

from pathlib import Path

import numpy as np
import pytest
import torch

from difix_model import DifixPipeline
from difix_train import (
    DataConfig,
    DifixTask,
    InputError,
    LossConfig,
    OptimizerConfig,
    Pair,
    PairDataset,
    TrainConfig,
    export_run,
    start_from_model,
    trained_model,
)
from difix_train.export import ExportForm
from train_runs import Loop

SIDE = 64


@pytest.fixture(scope="module")
def run(reference_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of training, from the reference data's small repository, of adapters on UNet and decoder."""
    start = start_from_model(reference_data / "hf_repo_tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start.network.add_unet_lora(2, alpha=2.0)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(2)]
    prompt = next(iter(start.text_embeddings))
    pair = Pair(id="one", image=images[0], clean=images[1], references=(), prompt=prompt)
    config = TrainConfig(
        trainable="lora",
        loss=LossConfig(lpips_weight=0, gram_weight=0),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        data=DataConfig(height=SIDE, width=SIDE),
    )
    dataset = PairDataset([pair], config.data)
    task = DifixTask(start.network, start.text_embeddings, dataset, config, metadata=start.metadata)
    folder = tmp_path_factory.mktemp("run")
    loop = Loop(task, folder, config)
    loop.train_until(2)
    loop.save()
    return folder


def _output(source: Path, **options) -> np.ndarray:
    image = np.random.default_rng(1).random((SIDE, SIDE, 3), dtype=np.float32)
    return DifixPipeline.from_pretrained(source, **options)(image)


@pytest.mark.reference
@pytest.mark.parametrize("to", ["safetensors", "diffusers", "pkl"])
def test_what_is_exported_opens_again_and_computes_the_same(
    run: Path, reference_data: Path, tmp_path: Path, to: ExportForm
) -> None:
    out = tmp_path / ("model.pkl" if to == "pkl" else "model")
    base = str(reference_data / "hf_repo_tiny")
    export_run(run, out, to=to, base=base if to == "diffusers" else None)
    options = {"base": base, "uses_reference": False} if to == "pkl" else {}
    before, after = _output(trained_model(run)), _output(out, **options)
    np.testing.assert_allclose(after, before, atol=1e-5)
    untrained = _output(reference_data / "hf_repo_tiny")
    assert np.abs(before - untrained).max() > 1e-3


@pytest.mark.reference
def test_a_run_without_its_end_gives_its_latest_checkpoint(run: Path, tmp_path: Path) -> None:
    assert trained_model(run).parent.name == "step_000002"
    with pytest.raises(InputError, match="holds no trained network"):
        trained_model(tmp_path)
