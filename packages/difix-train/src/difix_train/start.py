"""Where training starts: published weights, an own checkpoint, or a fresh network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.checkpoint import is_checkpoint, load_checkpoint
from difix_model.config import NetworkConfig
from difix_model.network import DifixNetwork
from difix_train.initialize import INITIALIZERS
from difix_train.presets import Preset


@dataclass(frozen=True, kw_only=True, eq=False)
class StartingPoint:
    """A network and the embeddings of the prompts that it is trained with."""

    network: DifixNetwork
    text_embeddings: dict[str, Float[Tensor, "n d"]]
    metadata: dict[str, Any]
    """What checkpoints say about their origin."""


def start_from_model(source: str | Path, *, base: str | Path | None = None) -> StartingPoint:
    """Continue from weights: a folder of ours, a folder in the published layout, or a published trainer's `.pkl`.

    Args:
        source: The weights.
        base: Folder of SD-Turbo in diffusers' layout; only for a `.pkl`, which holds no complete autoencoder.

    Raises:
        InputError: The source is missing, incomplete or of an unknown form.
    """
    if is_checkpoint(source):
        checkpoint = load_checkpoint(source)
    else:
        from difix_model.released import load_released

        checkpoint = load_released(source, base=base)
    return StartingPoint(
        network=checkpoint.network,
        text_embeddings={checkpoint.prompt: checkpoint.text_embedding},
        metadata=dict(checkpoint.metadata),
    )


def start_from_preset(preset: Preset, *, prompts: Sequence[str], seed: int) -> StartingPoint:
    """A fresh network of a preset's architecture; the same for the same seed. The global generator is untouched.

    Args:
        preset: Architecture and initialization.
        prompts: Prompts of the pairs; each gets a fixed random embedding.
        seed: Seed of the weights.
    """
    config = preset.network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DifixNetwork(config)
        INITIALIZERS[preset.initialize](network)
    return StartingPoint(
        network=network.eval(),
        text_embeddings={prompt: fixed_embedding(prompt, config, preset.num_text_tokens) for prompt in prompts},
        metadata={},
    )


def fixed_embedding(prompt: str, config: NetworkConfig, num_tokens: int) -> Float[Tensor, "n d"]:
    """Random vectors that depend on the prompt only."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tokens, config.unet.cross_attention_dim, generator=generator)
