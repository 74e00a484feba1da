from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsefusion import EftConfig, EpipolarTransformer, cache_views
from sparsefusion.eft import SetTransformer
from support.sparsefusion_cases import ReferenceData, recipe_weights, ring, worst

SMALL = EftConfig(encoder_width=8, encoder_tail=False, hidden=16, num_layers=1, num_depths=5)


@pytest.fixture(scope="module")
def published(recordings: ReferenceData) -> EpipolarTransformer:
    """The full-size transformer with the recipe's weights."""
    metadata = recordings.open("eft_forward").metadata
    eft = EpipolarTransformer()
    drawn = recipe_weights(eft.state_dict(), int(metadata["recipe_seed"]), float(metadata["recipe_std"]))
    eft.load_state_dict(drawn, strict=False)
    return eft.eval()


@pytest.mark.reference
def test_names_and_shapes_are_the_published_ones(recordings: ReferenceData):
    with torch.device("meta"):
        eft = EpipolarTransformer()
    manifest = recordings.json("manifest_eft_full")
    assert {name: list(value.shape) for name, value in eft.state_dict().items()} == manifest["keys"]
    assert sum(value.numel() for value in eft.parameters()) == manifest["n_params"]


@pytest.mark.reference
def test_the_recipe_draws_the_recorded_weights(recordings: ReferenceData, published: EpipolarTransformer):
    state = published.state_dict()
    for name, (shape, total, absolute) in recordings.json("eft_recipe").items():
        assert list(state[name].shape) == shape
        assert state[name].double().abs().sum().item() == pytest.approx(absolute, rel=1e-5)
        assert state[name].double().sum().item() == pytest.approx(total, rel=1e-3, abs=1e-3)


@pytest.mark.reference
def test_a_set_transformer_agrees_with_the_recording(recordings: ReferenceData):
    data = recordings.open("eft_transformer_small")
    weights = data.under("w.")
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layers."))
    hidden, channels_in = weights["pre.0.weight"].shape
    transformer = SetTransformer(channels_in, hidden, layers).eval()
    transformer.load_state_dict(weights)
    assert worst(transformer(data["x"]), data["y"]) < 1e-5


def _forward(eft: EpipolarTransformer, data) -> torch.Tensor:
    directions, query = data["rays8.directions"][0], data.cameras("query")
    reach = directions[0, 0, 0] * query.focal[0, 0] + query.principal[0, 0]
    image_size = round(1 / (1 - reach.item()))
    depths = data["rays8.lengths"][0, 0, 0]
    with torch.no_grad():
        views = eft.encode(data["input_rgb"], data.cameras("input"))
        out = eft(
            views, query, (depths[0].item(), depths[-1].item()), len(directions), image_size=image_size, max_rays=24
        )
    return torch.cat([out.rgb, out.features], dim=-1)[None]


@pytest.mark.reference
def test_the_transformer_agrees_with_the_recording_in_eval_mode(
    recordings: ReferenceData, published: EpipolarTransformer
):
    data = recordings.open("eft_forward")
    with torch.no_grad():
        features = published.encode(data["input_rgb"], data.cameras("input")).features
    assert worst(features.mean(dim=(0, 2, 3)), data["latent_mean_per_channel"]) < 1e-5
    assert worst(_forward(published, data), data["eval.out"]) < 1e-5


@pytest.mark.reference
def test_the_transformer_agrees_with_the_recording_in_train_mode(recordings: ReferenceData):
    data = recordings.open("eft_forward")
    eft = EpipolarTransformer(EftConfig(dropout=0.0))
    metadata = data.metadata
    drawn = recipe_weights(eft.state_dict(), int(metadata["recipe_seed"]), float(metadata["recipe_std"]))
    eft.load_state_dict(drawn, strict=False)
    assert worst(_forward(eft.train(), data), data["train_nodrop.out"]) < 1e-5


@pytest.mark.reference
def test_embedded_points_agree_with_the_recording(recordings: ReferenceData, published: EpipolarTransformer):
    data = recordings.open("eft_forward")
    origins, directions = (data[f"rays8.{name}"].reshape(-1, 3) for name in ("origins", "directions"))
    with torch.no_grad():
        views = published.encode(data["input_rgb"], data.cameras("input"))
        embedded = published.embed(views, origins, directions, data["rays8.lengths"][0, 0, 0])
    shown = data["eval.ref_plucker"].shape[1]
    assert worst(embedded.reference[:, :shown], data["eval.ref_plucker"]) < 1e-4
    assert worst(embedded.depth[None, :shown], data["eval.depth_emb"]) < 1e-6
    assert worst(embedded.sampled[:, :shown], data["eval.features"]) < 1e-5


def _small() -> EpipolarTransformer:
    torch.manual_seed(0)
    return EpipolarTransformer(SMALL)


def test_modes_differ_and_the_cache_leaves_the_transformer_as_it_was():
    eft, cameras = _small().eval(), ring(4)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in eft.state_dict().items()}
    eval_, train, again = (
        cache_views(eft, images, cameras[[0, 1]], cameras, cameras[[2]], mode=mode).features
        for mode in ("eval", "train", "train")
    )
    assert torch.equal(train, again)
    assert (train - eval_).abs().max() > 0.05 * eval_.abs().max()
    assert not eft.training
    assert all(torch.equal(value, before[name]) for name, value in eft.state_dict().items())


def test_the_order_of_the_photos_does_not_matter():
    eft, cameras = _small().eval(), ring(4)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one = cache_views(eft, images, cameras[[0, 1, 2]], cameras, cameras[[3]], mode="eval")
    other = cache_views(eft, images[[2, 0, 1]], cameras[[2, 0, 1]], cameras, cameras[[3]], mode="eval")
    assert worst(one.rgb, other.rgb) < 1e-4


def test_every_used_weight_gets_a_gradient():
    eft, cameras = _small().train(), ring(3)
    views = eft.encode(torch.rand(2, 3, 32, 32), cameras[[0, 1]])
    out = eft(views, cameras[2], (1.0, 11.0), 4, image_size=32)
    (out.rgb.mean() + out.features.square().mean()).backward()
    assert not [name for name, value in eft.named_parameters() if value.grad is None]
    assert isinstance(eft.encoder_model, nn.Module)
