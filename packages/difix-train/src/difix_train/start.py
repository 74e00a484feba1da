"""Where training starts: published weights, an own checkpoint, SD-Turbo with fresh adapters, or a fresh network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.config import PROMPT, NetworkConfig
from difix_model.formats.metadata import WeightsMetadata
from difix_model.identity import start_at_identity
from difix_model.network import DifixNetwork
from difix_train.errors import InputError, first_problems
from difix_train.presets import Preset

TextEmbeddings = Mapping[str, Float[Tensor, "n d"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class StartingPoint:
    """A network and the embeddings of the prompts that it is trained with."""

    network: DifixNetwork
    text_embeddings: dict[str, Float[Tensor, "n d"]]
    metadata: WeightsMetadata
    """What checkpoints say about their origin."""


def start_from_model(
    source: str | Path,
    *,
    base: str | Path | None = None,
    prompts: Sequence[str] = (PROMPT,),
    reference_attention: bool | None = None,
) -> StartingPoint:
    """Continue from weights of any kind that DifixPipeline opens.

    Args:
        source: A checkpoint folder of ours, a folder or hub id in the published layout, a published trainer's `.pkl`,
            or "default".
        base: Folder or hub id of SD-Turbo; only for a `.pkl`, which holds no complete autoencoder.
        prompts: Prompts to embed; a checkpoint of ours knows only its own.
        reference_attention: Whether self-attention runs across views, for the published layout and a published
            `.pkl`; None for what the weights say. Checkpoints of ours say it themselves.

    Raises:
        InputError: The source is missing, incomplete or of an unknown form, or ``reference_attention`` is given for a
            checkpoint of ours.
    """
    from difix_model.formats.hub import weights_folder
    from difix_model.formats.released import is_layout
    from difix_model.formats.sources import load_source
    from difix_model.text import TextEncoder

    if reference_attention is not None and not _leaves_attention_open(source, base):
        raise _attention_is_settled(source)
    checkpoint = load_source(source, base=base, uses_reference=reference_attention)
    if reference_attention is not None and checkpoint.network.config.reference_attention != reference_attention:
        raise _attention_is_settled(source)  # A .pkl that holds a whole network of ours after all.
    embeddings = {checkpoint.prompt: checkpoint.text_embedding}
    other_prompts = [prompt for prompt in prompts if prompt not in embeddings]
    if other_prompts and str(source) != "default":
        folder = weights_folder(base if str(source).endswith(".pkl") and base is not None else source)
        if is_layout(folder):
            encoder = TextEncoder(folder)
            embeddings |= {prompt: encoder(prompt) for prompt in other_prompts}
    # A gate was fitted to the weights as they were; it must be fitted again after training.
    metadata = replace(checkpoint.metadata, gate=None, notes={})
    return StartingPoint(network=checkpoint.network, text_embeddings=embeddings, metadata=metadata)


def _leaves_attention_open(source: str | Path, base: str | Path | None) -> bool:
    """Whether weights work with views that attend to each other and with views that do not."""
    from difix_model.formats.hub import weights_folder
    from difix_model.formats.released import is_layout

    if str(source) == "default":
        return False
    return base is not None if str(source).endswith(".pkl") else is_layout(weights_folder(source))


def _attention_is_settled(source: str | Path) -> InputError:
    return InputError(
        f"the network in {source} says itself whether views attend to each other: "
        "leave the setting of reference attention out"
    )


def start_from_base(
    base: str | Path, *, prompts: Sequence[str] = (PROMPT,), lora_rank: int = 4, reference_attention: bool, seed: int
) -> StartingPoint:
    """Begin like the published training: SD-Turbo's weights, fresh skip convolutions and decoder adapters.

    Args:
        base: Folder or hub id of SD-Turbo in diffusers' layout.
        reference_attention: Whether self-attention runs across views.

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
        metadata=WeightsMetadata(),
    )


def start_from_preset(preset: Preset, *, prompts: Sequence[str] = (PROMPT,), seed: int) -> StartingPoint:
    """Begin with a fresh network; the same for the same seed. The global generator is untouched.

    Args:
        prompts: Prompts of the pairs; each gets a fixed random embedding.
    """
    config = preset.network()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DifixNetwork(config)
        if preset.initialize == "identity":
            start_at_identity(network)
    return StartingPoint(
        network=network.eval(),
        text_embeddings={prompt: fixed_embedding(prompt, config, preset.num_text_tokens) for prompt in prompts},
        metadata=WeightsMetadata(),
    )


def fixed_embedding(prompt: str, config: NetworkConfig, num_tokens: int) -> Float[Tensor, "n d"]:
    """Random vectors that depend on the prompt only."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tokens, config.unet.cross_attention_dim, generator=generator)


def embeddings_by_prompt(given: Float[Tensor, "n d"] | TextEmbeddings, prompts: Sequence[str]) -> TextEmbeddings:
    """The embeddings that pairs with these prompts need, where one embedding serves one prompt."""
    if isinstance(given, Tensor):
        if len(prompts) > 1:
            raise InputError(f"the pairs have {len(prompts)} prompts and there is one text embedding: {prompts}")
        given = dict.fromkeys(prompts, given)
    missing = [f'"{prompt}"' for prompt in prompts if prompt not in given]
    if missing:
        known = ", ".join(f'"{prompt}"' for prompt in given)
        raise InputError(
            f"there is no text embedding for the prompt {first_problems(missing)}: "
            f"write the pairs with the model's own prompt ({known})"
        )
    return given
