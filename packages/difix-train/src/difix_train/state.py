"""Checkpoints of training on disk: the model folder, the optimizer and every counter; atomic and checksummed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from difix_model.formats.checkpoint import load_checkpoint, save_checkpoint
from difix_model.network import DifixNetwork
from difix_train.config import TrainConfig
from difix_train.errors import InputError, first_problems

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MODEL_FOLDER = "model"
PROGRESS = "training"
STATE_JSON = "training.json"
STATE_TENSORS = "training.safetensors"
MODEL_WEIGHTS = f"{MODEL_FOLDER}/model.safetensors"
CHECKSUMMED = (MODEL_WEIGHTS, f"{MODEL_FOLDER}/config.json", STATE_TENSORS)
OWN_CHECKSUM = "sha256_of_this"
"""Where the JSON part keeps the checksum of its other values; checkpoints from before it was kept have none."""

FREE_FIELDS = (
    "max_steps",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "validate_every",
    "validation_samples",
    "grid_samples",
    "data.num_workers",
    "data.cache",
    "loss.vgg16",
)
"""Fields that may differ when a run is continued: they do not touch the steps themselves (`max_steps` only through the
cosine schedule)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineState:
    """Where a run stands, apart from the network and the optimizer."""

    step: int
    config: TrainConfig | None
    sampler: dict[str, Any]
    sums: Mapping[str, tuple[float, int]]
    generator: Tensor
    raw_parameters: Mapping[str, Tensor]
    """Weights in training, where the saved network holds their average; otherwise empty."""

    text_embeddings: Mapping[str, Tensor]
    metadata: Mapping[str, Any]
    """What the model says about its origin."""

    world_size: int = 1
    """Processes that trained together."""


def write_state(
    folder: Path,
    state: EngineState,
    network: DifixNetwork,
    moments: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint beside its place, then move it there.

    Args:
        folder: The checkpoint; replaced if it exists.
        state: Counters and generators.
        network: What ``folder/model`` holds.
        moments: The optimizer's state, see :func:`difix_train.optim.optimizer_tensors`.

    Raises:
        InputError: The folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    prompts = list(state.text_embeddings)
    tensors = {f"optimizer/{name}": value for name, value in moments.items()}
    tensors |= {f"raw/{name}": value.cpu().contiguous() for name, value in state.raw_parameters.items()}
    tensors |= {f"text/{index}": state.text_embeddings[prompt].cpu() for index, prompt in enumerate(prompts)}
    tensors["generator"] = state.generator
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_checkpoint(
            partial / MODEL_FOLDER,
            network,
            text_embedding=state.text_embeddings[prompts[0]],
            prompt=prompts[0],
            metadata=model_metadata(state.metadata, state.step),
        )
        save_file(tensors, partial / STATE_TENSORS)
        values = {
            "format_version": FORMAT_VERSION,
            "step": state.step,
            "config": config_values(state.config) if state.config else {},
            "sampler": state.sampler,
            "sums": state.sums,
            "prompts": prompts,
            "world_size": state.world_size,
            "sha256": {name: sha256_of(partial / name) for name in CHECKSUMMED},
        }
        values[OWN_CHECKSUM] = sha256_of_values(values)
        (partial / STATE_JSON).write_text(json.dumps(values) + "\n", encoding="utf-8")
        for name in (*CHECKSUMMED, STATE_JSON):
            with (partial / name).open("rb+") as file:
                os.fsync(file.fileno())
        _put_in_place(partial, folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write the checkpoint {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename a whole checkpoint to its place; one that stands there already goes only afterwards."""
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY) if hasattr(os, "O_DIRECTORY") else None
    if descriptor is not None:
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    shutil.rmtree(old, ignore_errors=True)


def read_state(folder: Path, config: TrainConfig) -> tuple[DifixNetwork, EngineState, dict[str, Tensor]]:
    """Read a checkpoint to the CPU after checking it.

    Returns:
        The network, the state, and the optimizer's tensors.

    Raises:
        InputError: Absent, damaged, or from a run whose configuration differs in a field that matters.
    """
    values = read_progress(folder)
    check_whole(folder, values)
    check_same_run(values["config"], config, folder)
    checkpoint = load_checkpoint(folder / MODEL_FOLDER)
    tensors = load_file(folder / STATE_TENSORS)
    state = EngineState(
        step=values["step"],
        config=None,
        sampler=values["sampler"],
        sums={name: (total, count) for name, (total, count) in values["sums"].items()},
        generator=tensors["generator"],
        raw_parameters=_under("raw/", tensors),
        text_embeddings={prompt: tensors[f"text/{index}"] for index, prompt in enumerate(values["prompts"])},
        metadata={name: value for name, value in checkpoint.metadata.items() if name != PROGRESS},
        world_size=values.get("world_size", 1),
    )
    return checkpoint.network, state, _under("optimizer/", tensors)


def check_whole(folder: Path, values: Mapping[str, Any]) -> None:
    """Compare a checkpoint's files, and its JSON part itself, with the checksums in that part.

    Raises:
        InputError: A file is missing or differs.
    """
    own = sha256_of_values(values)
    if values.get(OWN_CHECKSUM, own) != own:
        raise InputError(f"the checkpoint {folder} is damaged: {STATE_JSON}")
    damaged = [
        name
        for name, expected in values["sha256"].items()
        if not (folder / name).is_file() or sha256_of(folder / name) != expected
    ]
    if damaged:
        raise InputError(f"the checkpoint {folder} is damaged: {', '.join(damaged)}")


def newest_whole(folders: Sequence[Path]) -> Path:
    """The last of these checkpoints, oldest first, that is whole; those skipped are named in the log.

    Raises:
        InputError: None is.
    """
    for folder in reversed(folders):
        try:
            check_whole(folder, read_progress(folder))
        except InputError as error:
            logger.warning("%s; trying an earlier one", error)
            continue
        return folder
    raise InputError(f"none of the checkpoints in {folders[0].parent} is whole: start a new run in another folder")


def read_progress(folder: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint.

    Raises:
        InputError: Absent, not JSON, or of another version.
    """
    path = folder / STATE_JSON
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): {folder} is no training checkpoint") from error
    if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path} has another format version than {FORMAT_VERSION}")
    return values


def model_metadata(metadata: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Metadata of a saved model: its origin, and how long it was trained."""
    return {**metadata, PROGRESS: {"step": step}}


def config_values(config: Any) -> dict[str, Any]:
    """A configuration dataclass as JSON values."""
    return json.loads(json.dumps(asdict(config), default=str))


def check_same_run(saved: dict[str, Any], config: TrainConfig, folder: Path) -> None:
    """Compare a saved configuration with the present one.

    Raises:
        InputError: Fields differ that decide what the steps do.
    """
    before, now = _flat(saved), _flat(config_values(config))
    names = [name for name in sorted(before.keys() | now.keys()) if name not in FREE_FIELDS]
    changed = [
        f"{name} was {before.get(name)}, now {now.get(name)}" for name in names if before.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(f"{folder} belongs to a run with other settings: {first_problems(changed)}")


def sha256_of(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_values(values: Mapping[str, Any]) -> str:
    """Checksum of what a JSON object holds, except the checksum itself."""
    rest = {name: value for name, value in values.items() if name != OWN_CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
