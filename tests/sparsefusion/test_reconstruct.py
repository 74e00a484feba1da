from __future__ import annotations

import pytest
import torch

from sparsefusion import (
    DistillConfig,
    EftConfig,
    FieldConfig,
    InputError,
    ModelConfig,
    ObjectSequence,
    UNetConfig,
    VaeConfig,
    build_model,
    start_distillation,
)
from support.sparsefusion_cases import ring

CONFIG = DistillConfig(
    max_steps=4, diffusion_start=1, image_size=32, render_size=16, num_circle=3, num_sampling_steps=2
)
FIELD = FieldConfig(num_levels=4, finest_per_bound=16, log2_table_size=10, num_steps=8, num_importance=8)
MODEL = ModelConfig(
    eft=EftConfig(encoder_width=8, encoder_tail=False, hidden=16, num_layers=1, num_depths=5),
    unet=UNetConfig(dim=8, dim_mults=(1, 2), num_resnet_blocks=1, cond_channels=16, num_heads=2, head_dim=8),
    vae=VaeConfig(block_channels=(8, 8, 8, 8), norm_groups=4),
)


def _sequence() -> ObjectSequence:
    rgb, masks = torch.zeros(5, 3, 32, 32), torch.zeros(5, 1, 32, 32)
    rgb[:, 1, 8:24, 8:24], masks[:, :, 8:24, 8:24] = 0.7, 1
    return ObjectSequence("box", rgb, masks, torch.ones_like(masks), ring(5), tuple("abcde"))


def test_the_whole_method_runs_and_repeats():
    torch.manual_seed(0)
    model = build_model(MODEL)
    results = []
    for _ in range(2):
        distillation = start_distillation(_sequence(), [0, 2], model, config=CONFIG, field=FIELD)
        assert distillation.cached is not None
        assert len(distillation.cached) == 5 + CONFIG.num_circle
        distillation.train_until(4)
        assert distillation.last_fusion is not None
        results.append(distillation.field.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_without_networks_the_photos_alone_are_fitted():
    distillation = start_distillation(_sequence(), [0, 2], config=CONFIG, field=FIELD)
    distillation.train_until(2)
    assert distillation.cached is None
    assert len(distillation.history.input) == 2
    assert not distillation.history.cached


def test_what_is_wrong_with_the_photos_is_said_in_one_sentence():
    sequence = _sequence()
    for chosen, message in (([1], "1 input photo is not enough"), ([0, 7], r"photos \[7\] are not there")):
        with pytest.raises(InputError, match=message):
            start_distillation(sequence, chosen, config=CONFIG, field=FIELD)
    sequence.masks[2] = 0
    with pytest.raises(InputError, match="the masks of c are empty"):
        start_distillation(sequence, [0, 2], config=CONFIG, field=FIELD)
    sequence = _sequence()
    sequence.cameras.T[0, 2] = -3.0
    with pytest.raises(InputError, match="cameras of a have the object behind them"):
        start_distillation(sequence, [0, 2], config=CONFIG, field=FIELD)
    with pytest.raises(InputError, match="32 pixels wide"):
        start_distillation(sequence, [0, 2], field=FIELD)
