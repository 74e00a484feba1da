"""Weights of any form into any other: our checkpoint folder, the published layout, the released trainer's file."""

from pathlib import Path
from typing import Literal

import torch

from difix_model.errors import InputError
from difix_model.formats.checkpoint import Checkpoint
from difix_model.formats.durable import check_free
from difix_model.formats.hub import weights_folder
from difix_model.formats.published import save_layout
from difix_model.formats.publishing import save_with_card
from difix_model.formats.released import is_layout
from difix_model.formats.released_pickle import is_pickle, save_pickle
from difix_model.formats.sources import DEFAULT_SOURCE, load_source

WeightsForm = Literal["safetensors", "diffusers", "pkl"]
"""Our checkpoint folder, the layout of nvidia/difix (diffusers' own), or `model_<step>.pkl` of the released trainer."""

DtypeName = Literal["float32", "float16", "bfloat16"]


def convert_checkpoint(
    source: Path | str,
    out: Path | str,
    *,
    to: WeightsForm,
    revision: str | None = None,
    base: Path | str | None = None,
    prompt: str | None = None,
    uses_reference: bool | None = None,
    dtype: torch.dtype | DtypeName | None = None,
) -> Path:
    """Read weights of any form and write them in another; the result opens again and computes the same.

    Args:
        source: As for `DifixPipeline.from_pretrained`.
        out: Folder, or for "pkl" a file; must not exist yet.
        base: For a .pkl of the released trainer: folder or hub id of what it was trained from. For the published
            layout: where the tokenizer and text encoder come from, if the source has none.
        prompt: Prompt to store; None keeps the source's.
        uses_reference: Whether the weights know references; None takes it from the source.
        dtype: Floating-point type on disk, or its name; None means float32. Another one rounds.

    Raises:
        InputError: If the source cannot be read, something lacks for the form, or `out` exists or cannot be written.
    """
    out = Path(out)
    check_free(out)
    from_pickle = is_pickle(source)
    if base is not None and not from_pickle and to != "diffusers":
        raise InputError("a base is needed to read a .pkl and to write the published layout only: leave it out")
    encoder = _text_encoder(source, revision, base) if to == "diffusers" else None
    checkpoint = load_source(
        source,
        revision=None if from_pickle else revision,
        base=base if from_pickle else None,
        prompt=prompt,
        uses_reference=uses_reference,
    )
    on_disk = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return export_checkpoint(checkpoint, out, to=to, text_encoder=encoder, dtype=on_disk)


def export_checkpoint(
    checkpoint: Checkpoint,
    out: Path | str,
    *,
    to: WeightsForm,
    text_encoder: Path | str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write weights that are in memory, in one of three forms.

    Args:
        out: Folder, or for "pkl" a file; must not exist yet.
        text_encoder: For the published layout: folder or hub id with the tokenizer and the text encoder.
        dtype: Floating-point type on disk; None keeps each parameter's own.

    Returns:
        `out`.

    Raises:
        InputError: If something lacks for the form, or `out` exists or cannot be written.
    """
    out = Path(out)
    check_free(out)
    if to == "safetensors":
        save_with_card(out, checkpoint, name=out.name, dtype=dtype)
    elif to == "pkl":
        save_pickle(out, checkpoint, dtype=dtype)
    elif text_encoder is None:
        raise InputError("the published layout holds a text encoder: say where to take it from")
    else:
        save_layout(out, checkpoint, text_encoder=weights_folder(text_encoder), dtype=dtype)
    return out


def _text_encoder(source: Path | str, revision: str | None, base: Path | str | None) -> Path:
    """Find the text encoder for the published layout: the base's, or the source's own."""
    if base is not None:
        return weights_folder(base)
    if not is_pickle(source) and str(source) != DEFAULT_SOURCE:
        folder = weights_folder(source, revision=revision)
        if is_layout(folder):
            return folder
    raise InputError(
        f"the published layout holds a text encoder, and {source} holds only the embedding of its prompt: "
        "name a repository that has the one it was trained with as the base, such as stabilityai/sd-turbo"
    )
