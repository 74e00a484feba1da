"""Tiny networks, and a tiny repository of the published layout, built here so that no file has to be shipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from difix_model import DifixNetwork, NetworkConfig, save_checkpoint, tiny_config

# The library's tests also run alone, without the suite's own conftest.
os.environ["HF_HUB_OFFLINE"] = "1"


def random_network(config: NetworkConfig, seed: int = 0) -> DifixNetwork:
    """Build a network in which every part matters: no zero adapters, no negligible skips."""
    generator = torch.Generator().manual_seed(seed)
    network = DifixNetwork(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * (0.3 if "lora_B" in name else 1.0) / fan_in**0.5)
            else:
                parameter.add_(0.1 * noise) if "norm" in name else parameter.copy_(0.1 * noise)
    return network


@pytest.fixture
def network() -> DifixNetwork:
    return random_network(tiny_config())


@pytest.fixture(scope="session")
def text_embedding() -> torch.Tensor:
    return torch.randn(7, tiny_config().unet.cross_attention_dim, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory, text_embedding: torch.Tensor) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "checkpoint"
    save_checkpoint(folder, random_network(tiny_config()), text_embedding=text_embedding, prompt="remove degradation")
    return folder


@pytest.fixture(scope="session")
def published_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as nvidia/difix lays it out, around `random_network(tiny_config())`."""
    folder = tmp_path_factory.mktemp("hub") / "difix"
    write_layout(folder, random_network(tiny_config()))
    return folder


def write_layout(folder: Path, network: DifixNetwork) -> None:
    config = network.config
    index = {
        "_class_name": "DifixPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["autoencoder_kl", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
    }
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    network.unet.save_config(folder / "unet")
    save_file(network.unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae_config = {
        "_class_name": "AutoencoderKL",
        "block_out_channels": config.vae.block_out_channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(config.vae.block_out_channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(config.vae.block_out_channels),
        "layers_per_block": config.vae.layers_per_block,
        "norm_num_groups": config.vae.norm_num_groups,
        "latent_channels": config.vae.latent_channels,
    }
    state = dict(network.vae.state_dict())
    vae_config |= {"gamma": 1.0, "ignore_skip": False, "lora_rank": config.vae.lora_rank}
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps(vae_config))
    save_file(state, folder / "vae" / "diffusion_pytorch_model.safetensors")
    write_text_encoder(folder, config.unet.cross_attention_dim)


def write_text_encoder(folder: Path, width: int) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = ["!", *[letter for letter in letters if letter != "!"], *[letter + "</w>" for letter in letters]]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = special | {"pad_token": "!", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    text_config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=0,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(3)
    model = CLIPTextModel(text_config)
    torch.random.set_rng_state(state)
    (folder / "text_encoder").mkdir()
    text_config.save_pretrained(folder / "text_encoder")
    save_file(dict(model.state_dict()), folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
