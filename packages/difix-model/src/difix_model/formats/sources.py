"""Weights of any kind, from a folder, a file or the hub, as one checkpoint in memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difix_model.config import PROMPT
from difix_model.errors import InputError
from difix_model.formats.checkpoint import Checkpoint, is_checkpoint, load_checkpoint, read_json
from difix_model.formats.hub import is_hub_id, weights_folder
from difix_model.formats.metadata import WeightsMetadata
from difix_model.formats.published import EXTRAS_FILE
from difix_model.formats.released import Released, is_layout, load_released
from difix_model.formats.released_pickle import is_pickle, network_over_base, own_checkpoint, read_pickle
from difix_model.formats.weights_license import license_of_card, license_of_layout, license_of_pickle

DEFAULT_SOURCE = "default"
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
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

    The checkpoint's metadata says where they come from and which license they carry.
    """
    if is_pickle(source):
        return _from_pickle(Path(source), base=base, revision=revision, prompt=prompt, uses_reference=uses_reference)
    if base is not None:
        raise InputError(f"a base goes with a .pkl file only, and {source} is none")
    if str(source) == DEFAULT_SOURCE:
        if not is_checkpoint(WEIGHTS_FOLDER):
            raise InputError("this installation has no embedded weights: name a checkpoint folder or a hub id")
        folder = weights_folder(WEIGHTS_FOLDER, revision=revision)
    else:
        folder = weights_folder(source, revision=revision)
    folder = trained_folder(folder)
    if is_layout(folder):
        released = load_released(folder, reference_attention=uses_reference)
        return layout_checkpoint(released, source=_named(source, revision), prompt=prompt)
    if not is_checkpoint(folder):
        raise InputError(f"{folder} is neither a checkpoint folder nor in the published layout")
    checkpoint = load_checkpoint(folder)
    _check_prompt(checkpoint, prompt, folder)
    if checkpoint.metadata.license is None:
        checkpoint = _described(checkpoint, license=license_of_card(folder))
    return checkpoint if uses_reference is None else _described(checkpoint, uses_reference=uses_reference)


def _described(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    return replace(checkpoint, metadata=replace(checkpoint.metadata, **changes))


def trained_folder(folder: Path) -> Path:
    """The network in a folder of a training: the finished one of a run, of its newest checkpoint, or of a checkpoint.

    Args:
        folder: A run, a checkpoint of one, or anything else, which comes back as it is.
    """
    if is_checkpoint(folder) or is_layout(folder):
        return folder
    saved = sorted((folder / "checkpoints").glob("step_*"), key=lambda path: path.name, reverse=True)
    places = [folder / "model", *(path / "model" for path in saved)]
    return next((place for place in places if is_checkpoint(place)), folder)


def layout_checkpoint(released: Released, *, source: Path | str, prompt: str | None = None) -> Checkpoint:
    """Make a checkpoint of weights in the published layout.

    Args:
        prompt: Prompt; None takes the one that is written beside the weights, or that of the released ones.

    Raises:
        InputError: If what is written beside the weights is damaged.
    """
    extras = released.folder / EXTRAS_FILE
    stored: dict[str, Any] = read_json(extras) if extras.is_file() else {}
    prompt = prompt or str(stored.get("prompt") or PROMPT)
    try:
        given = WeightsMetadata.from_dict(stored.get("metadata", {}))
    except InputError as error:
        raise InputError(f"{extras} is damaged: {error}") from error
    metadata = replace(
        given,
        origin=given.origin or origin_of(source),
        license=given.license or license_of_layout(released.folder, source),
        uses_reference=released.network.config.reference_attention and given.uses_reference is not False,
    )
    return Checkpoint(
        network=released.network, text_embedding=released.text_encoder(prompt), prompt=prompt, metadata=metadata
    )


def origin_of(source: Path | str) -> str:
    """Return what to record of where weights come from: a hub id as it is, and of a path only the last name."""
    return str(source) if is_hub_id(str(source).partition("@")[0]) else Path(source).resolve().name


def _named(source: Path | str, revision: str | None) -> str:
    return str(source) if revision is None else f"{source}@{revision}"


def _from_pickle(
    path: Path, *, base: Path | str | None, revision: str | None, prompt: str | None, uses_reference: bool | None
) -> Checkpoint:
    if revision is not None and base is None:
        raise InputError(f"{path} is a file, which has no revision {revision}: leave the revision out")
    content = read_pickle(path)
    own = own_checkpoint(content, path)
    if own is not None and (base is None or prompt in (None, own.prompt)):
        _check_prompt(own, prompt, path)
        return own if uses_reference is None else _described(own, uses_reference=uses_reference)
    if base is None:
        raise InputError(f"{path} holds only part of a network: name the base it was trained from as well")
    folder = weights_folder(base, revision=revision)
    released = network_over_base(
        content, path, folder, reference_attention=uses_reference is not False, dtype=torch.float32
    )
    embedding: Tensor = released.text_encoder(prompt or PROMPT)
    given = WeightsMetadata() if own is None else own.metadata
    known = released.network.config.reference_attention if given.uses_reference is None else given.uses_reference
    metadata = replace(
        given,
        origin=given.origin or origin_of(path),
        license=given.license or license_of_pickle(license_of_layout(folder, _named(base, revision))),
        uses_reference=known,
    )
    return Checkpoint(network=released.network, text_embedding=embedding, prompt=prompt or PROMPT, metadata=metadata)


def _check_prompt(checkpoint: Checkpoint, prompt: str | None, place: Path) -> None:
    if prompt is not None and prompt != checkpoint.prompt:
        raise InputError(
            f'{place} holds the embedding of the prompt "{checkpoint.prompt}" and no text encoder: '
            "leave the prompt out, or train with the other one"
        )
