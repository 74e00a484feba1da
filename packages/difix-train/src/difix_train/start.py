"""Where training starts: published weights, an own checkpoint, SD-Turbo with fresh adapters, or a fresh network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.config import PROMPT, NetworkConfig
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


def start_from_model(
    source: str | Path, *, base: str | Path | None = None, prompts: Sequence[str] = (PROMPT,)
) -> StartingPoint:
    """Continue from weights of any kind that DifixPipeline opens.

    Args:
        source: A checkpoint folder of ours, a folder or hub id in the published layout, a published trainer's `.pkl`,
            or "default".
        base: Folder or hub id of SD-Turbo; only for a `.pkl`, which holds no complete autoencoder.
        prompts: Prompts to embed; a checkpoint of ours knows only its own.

    Raises:
        InputError: The source is missing, incomplete or of an unknown form.
    """
    from difix_model.formats.hub import weights_folder
    from difix_model.formats.released import is_layout
    from difix_model.formats.sources import load_source
    from difix_model.text import TextEncoder

    checkpoint = load_source(source, base=base)
    embeddings = {checkpoint.prompt: checkpoint.text_embedding}
    other_prompts = [prompt for prompt in prompts if prompt not in embeddings]
    if other_prompts and str(source) != "default":
        folder = weights_folder(base if str(source).endswith(".pkl") and base is not None else source)
        if is_layout(folder):
            encoder = TextEncoder(folder)
            embeddings |= {prompt: encoder(prompt) for prompt in other_prompts}
    # A gate was fitted to the weights as they were; it must be fitted anew after training.
    metadata = {name: value for name, value in checkpoint.metadata.items() if name not in ("gate", "training")}
    return StartingPoint(network=checkpoint.network, text_embeddings=embeddings, metadata=metadata)


def start_from_base(
    base: str | Path, *, prompts: Sequence[str] = (PROMPT,), lora_rank: int = 4, reference_attention: bool, seed: int
) -> StartingPoint:
    """Begin like the published training: SD-Turbo's weights, fresh skip convolutions and decoder adapters.

    Args:
        base: Folder or hub id of SD-Turbo in diffusers' layout.
        prompts: Prompts to embed.
        lora_rank: Rank of the decoder's adapters.
        reference_attention: Whether self-attention runs across views.
        seed: Seed of the adapters.

    Raises:
        InputError: The base is missing, incomplete or of another architecture.
    """
    from difix_model.formats.released import initialize_from_base

    released = initialize_from_base(
        base,
        lora_rank=lora_rank,
        reference_attention=reference_attention,
        generator=torch.Generator().manual_seed(seed),
    )
    return StartingPoint(
        network=released.network,
        text_embeddings={prompt: released.text_encoder(prompt) for prompt in prompts},
        metadata={},
    )


def start_from_preset(preset: Preset, *, prompts: Sequence[str] = (PROMPT,), seed: int) -> StartingPoint:
    """Begin with a fresh network; the same for the same seed. The global generator is untouched.

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
