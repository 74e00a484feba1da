"""What the network promises about views, sizes, gradients and isolation; needs no reference data."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from difix_model import DifixNetwork, InputError, NetworkConfig, UNetConfig, VaeConfig, tiny_config
from difix_model.denoise import predict_clean


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.fixture
def network(network: DifixNetwork) -> DifixNetwork:
    """Double precision, so that equalities are not blurred by kernels that round differently."""
    return network.double()


@pytest.fixture
def run(network: DifixNetwork, text_embedding: Tensor):
    def call(x: Tensor, **kwargs) -> Tensor:
        with torch.no_grad():
            return network(x, text_embedding=text_embedding, **kwargs)

    return call


@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_target_only_equals_the_first_of_all_views(run, num_views: int) -> None:
    x = images(2, num_views, 3, 24, 40)
    torch.testing.assert_close(run(x, decode="target"), run(x)[:, :1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_samples_of_a_batch_do_not_influence_each_other(run, num_views: int) -> None:
    x = images(3, num_views, 3, 24, 40)
    alone = torch.cat([run(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(run(x), alone, atol=1e-9, rtol=0)


def test_every_reference_influences_the_render(run) -> None:
    x = images(1, 3, 3, 24, 40)
    for view in (1, 2):
        changed = x.clone()
        changed[:, view] = images(1, 3, 24, 40, seed=9)
        assert (run(changed) - run(x))[:, 0].abs().max() > 1e-4


def test_the_order_of_references_does_not_matter(run) -> None:
    x = images(1, 3, 3, 24, 40)
    torch.testing.assert_close(run(x[:, [0, 2, 1]])[:, 0], run(x)[:, 0], atol=1e-9, rtol=0)


def test_without_reference_attention_views_are_independent(network: DifixNetwork, text_embedding: Tensor) -> None:
    network.config = dataclasses.replace(network.config, reference_attention=False)
    x = images(2, 2, 3, 24, 40)
    with torch.no_grad():
        together = network(x, text_embedding=text_embedding)
        apart = [network(x[:, i : i + 1], text_embedding=text_embedding) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1), atol=1e-9, rtol=0)


def test_other_models_in_the_process_are_left_alone(run) -> None:
    from diffusers.models.attention import BasicTransformerBlock

    block = BasicTransformerBlock(16, 2, 8, cross_attention_dim=16).eval()
    hidden, text = torch.randn(3, 5, 16), torch.randn(3, 2, 16)
    with torch.no_grad():
        before = block(hidden, encoder_hidden_states=text)
        run(images(1, 2, 3, 24, 40))
        after = block(hidden, encoder_hidden_states=text)
    assert torch.equal(before, after)


def test_two_networks_of_different_variants_do_not_interfere(network: DifixNetwork, text_embedding: Tensor) -> None:
    x = images(1, 2, 3, 24, 40)
    with torch.no_grad():
        before = network(x, text_embedding=text_embedding)
        DifixNetwork(tiny_config(reference_attention=False)).double()(x, text_embedding=text_embedding)
        assert torch.equal(network(x, text_embedding=text_embedding), before)


def test_text_embeddings_of_each_sample(network: DifixNetwork, text_embedding: Tensor) -> None:
    x = images(2, 2, 3, 24, 40)
    other = text_embedding.flip(0) + 0.5
    with torch.no_grad():
        both = network(x, text_embedding=torch.stack([text_embedding, other]))
        torch.testing.assert_close(network(x, text_embedding=text_embedding[None])[0], both[0], atol=1e-9, rtol=0)
        torch.testing.assert_close(network(x, text_embedding=other)[1], both[1], atol=1e-9, rtol=0)
        with pytest.raises(ValueError, match="one per sample"):
            network(x, text_embedding=torch.stack([text_embedding] * 3))


def test_gradients_reach_every_parameter_also_beyond_the_clamp(network: DifixNetwork, text_embedding: Tensor) -> None:
    network.train()
    output = network(images(1, 2, 3, 24, 40), text_embedding=text_embedding, clamp=False)
    (output * 100).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_gradient_checkpointing_keeps_the_views(network: DifixNetwork, text_embedding: Tensor) -> None:
    network.train()
    x = images(1, 2, 3, 24, 40)
    expected = network(x, text_embedding=text_embedding)
    network.unet.enable_gradient_checkpointing()
    torch.testing.assert_close(network(x, text_embedding=text_embedding), expected, atol=1e-9, rtol=0)


def test_sizes_that_do_not_fit_are_refused(run) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        run(images(1, 1, 3, 20, 40))


@pytest.mark.parametrize(
    ("levels", "unet_levels", "latent_height", "latent_width", "num_views", "rank"),
    [(1, 2, 2, 3, 1, 0), (2, 3, 5, 3, 3, 1), (3, 2, 3, 5, 2, 3), (4, 3, 1, 2, 1, 2), (4, 2, 3, 3, 2, 0)],
)
def test_any_depth_rank_and_latent_size(levels, unet_levels, latent_height, latent_width, num_views, rank) -> None:
    tiny = tiny_config()
    config = NetworkConfig(
        unet=UNetConfig(
            block_out_channels=(8, 16, 16)[:unet_levels],
            layers_per_block=1,
            num_heads=(2,) * unet_levels,
            cross_attention_dim=16,
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D",) * unet_levels,
            up_block_types=("CrossAttnUpBlock2D",) * unet_levels,
        ),
        vae=dataclasses.replace(tiny.vae, block_out_channels=(4, 8, 8, 12)[:levels], lora_rank=rank),
    )
    network = DifixNetwork(config).double().eval()
    factor = config.vae.downscale_factor
    x = images(1, num_views, 3, latent_height * factor, latent_width * factor)
    with torch.no_grad():
        assert network(x, text_embedding=torch.zeros(3, 16)).shape == x.shape
    assert any("lora" in name for name in network.state_dict()) == bool(rank)


def test_adding_noise_and_predicting_it_gives_the_clean_latent_back() -> None:
    clean, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    alpha = 0.7552380561828613
    torch.testing.assert_close(
        predict_clean(alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise, noise, 199), clean, atol=1e-5, rtol=0
    )


def test_configurations_survive_json_and_refuse_nonsense() -> None:
    import json

    config = tiny_config(lora_rank=3)
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    values = config.to_dict()
    values["unet"].pop("num_heads")
    values["vae"]["color"] = 1
    with pytest.raises(InputError, match=r"(?s)unet\.num_heads.*vae\.color|vae\.color.*unet\.num_heads"):
        NetworkConfig.from_dict(values)
    with pytest.raises(ValueError, match="num_heads"):
        UNetConfig(num_heads=(3, 10, 20, 20))
    with pytest.raises(ValueError, match="lora_rank"):
        VaeConfig(lora_rank=-1)


def test_merging_adapters(network: DifixNetwork, text_embedding: Tensor, run) -> None:
    x = images(1, 2, 3, 24, 40)
    before = run(x)
    network.merge_lora()
    assert network.config.vae.lora_rank == 0
    torch.testing.assert_close(run(x), before, atol=1e-9, rtol=0)
    assert set(network.state_dict()) == set(DifixNetwork(network.config).state_dict())
