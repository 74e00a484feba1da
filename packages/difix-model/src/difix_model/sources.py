"""Weights of any kind, from a folder, a file or the hub, as one checkpoint in memory."""

from pathlib import Path
from typing import Any

from difix_model.checkpoint import Checkpoint, is_checkpoint, load_checkpoint
from difix_model.config import PROMPT
from difix_model.errors import InputError
from difix_model.hub import weights_folder
from difix_model.released import is_layout, load_pickle, load_released

DEFAULT_SOURCE = "default"
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""The weights that come with the package."""


def load_source(
    source: Path | str = DEFAULT_SOURCE,
    *,
    revision: str | None = None,
    base: Path | str | None = None,
    prompt: str | None = None,
    uses_reference: bool | None = None,
) -> Checkpoint:
    """Load weights of any kind to the CPU; the arguments are those of `DifixPipeline.from_pretrained`.

    Raises:
        InputError: If the weights cannot be found, read or used this way.
    """
    if str(source) == DEFAULT_SOURCE:
        if not is_checkpoint(WEIGHTS_FOLDER):
            raise InputError("this installation has no embedded weights: name a checkpoint folder or a hub id")
        source = WEIGHTS_FOLDER
    if str(source).endswith(".pkl"):
        if base is None:
            raise InputError(f"{source} holds only part of a network: name the base it was trained from as well")
        known = uses_reference is not False
        released = load_pickle(source, base=base, reference_attention=known)
        return _released_checkpoint(released, prompt, source)
    if base is not None:
        raise InputError(f"a base goes with a .pkl file only, and {source} is none")
    folder = weights_folder(source, revision=revision)
    if is_layout(folder):
        return _released_checkpoint(load_released(folder, reference_attention=uses_reference), prompt, source)
    if not is_checkpoint(folder):
        raise InputError(f"{folder} is neither a checkpoint folder nor in the published layout")
    checkpoint = load_checkpoint(folder)
    if prompt is not None and prompt != checkpoint.prompt:
        raise InputError(
            f'{folder} holds the embedding of the prompt "{checkpoint.prompt}" and no text encoder: '
            "leave the prompt out, or train with the other one"
        )
    if uses_reference is not None:
        checkpoint.metadata["uses_reference"] = uses_reference
    return checkpoint


def _released_checkpoint(released: Any, prompt: str | None, source: Path | str) -> Checkpoint:
    prompt = PROMPT if prompt is None else prompt
    return Checkpoint(
        network=released.network,
        text_embedding=released.text_encoder(prompt),
        prompt=prompt,
        metadata={"origin": str(source), "uses_reference": released.network.config.reference_attention},
    )
