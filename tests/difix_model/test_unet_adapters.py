"""Adapters on the UNet: PEFT computes the same, they change nothing when fresh, and they merge into plain layers."""

from pathlib import Path

import pytest
import torch

from difix_model import DifixNetwork, DifixPipeline, load_checkpoint, save_checkpoint, tiny_config
from difix_model.unet import lora_targets

RANK, ALPHA = 3, 5.0


def _network(*, with_lora: bool) -> DifixNetwork:
    torch.manual_seed(0)
    network = DifixNetwork(tiny_config()).eval()
    if with_lora:
        network.add_unet_lora(RANK, ALPHA)
    return network


def _stirred(network: DifixNetwork) -> DifixNetwork:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.unet.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def _views() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "x": torch.rand(1, 2, 3, 16, 24, generator=generator) * 2 - 1,
        "text_embedding": torch.randn(4, 16, generator=generator),
    }


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_trained_ones_do() -> None:
    plain = _network(with_lora=False)(**_views())
    network = _network(with_lora=True)
    torch.testing.assert_close(network(**_views()), plain, atol=0, rtol=0)
    assert (_stirred(network)(**_views()) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_merging_keeps_the_output_and_leaves_plain_names() -> None:
    network = _stirred(_network(with_lora=True))
    before = network(**_views())
    network.merge_lora()
    torch.testing.assert_close(network(**_views()), before, atol=2e-5, rtol=0)
    assert network.config.unet.lora_rank == 0
    assert set(network.unet.state_dict()) == set(_network(with_lora=False).unet.state_dict())


@torch.no_grad()
def test_peft_computes_the_same_from_the_same_tensors() -> None:
    peft = pytest.importorskip("peft")
    ours = _stirred(_network(with_lora=True))
    theirs = _network(with_lora=False)
    targets = lora_targets(theirs.unet)
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets), theirs.unet, adapter_name="unet"
    )
    theirs.unet.load_state_dict(ours.unet.state_dict(), strict=True)
    torch.testing.assert_close(theirs.eval()(**_views()), ours(**_views()), atol=1e-5, rtol=0)


def test_a_checkpoint_with_adapters_opens_again_and_in_the_pipeline(tmp_path: Path) -> None:
    network = _stirred(_network(with_lora=True))
    embedding = _views()["text_embedding"]
    save_checkpoint(tmp_path, network, text_embedding=embedding, prompt="remove degradation")
    loaded = load_checkpoint(tmp_path)
    assert loaded.network.config == network.config
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(**_views()), network(**_views()), atol=0, rtol=0)
    pipeline = DifixPipeline.from_pretrained(tmp_path)
    assert pipeline.network.config.unet.lora_rank == 0


def test_a_second_set_of_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="without adapters"):
        _network(with_lora=True).add_unet_lora(RANK, ALPHA)
