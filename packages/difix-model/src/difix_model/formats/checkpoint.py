"""Our checkpoint: a folder with `config.json` and `model.safetensors`, the text embedding included."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from difix_model.config import NetworkConfig
from difix_model.errors import InputError, first_problems
from difix_model.formats.metadata import WeightsMetadata
from difix_model.network import DifixNetwork
from output_files import flush_alone

FORMAT = "difix-model"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TEXT_EMBEDDING = "text_embedding"
SAVE_ID = "save_id"
"""Stands in both files of a save, so that a half-overwritten folder is recognized."""

TENSORS_SHA256 = "tensors_sha256"
"""Entry of the configuration: checksum of all tensors, compared when they are read."""

COMPILED = "_orig_mod."
"""What `torch.compile` puts into the names of a compiled module's parameters."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with all that is needed to run it."""

    network: DifixNetwork
    text_embedding: Float[Tensor, "n d"]
    """Embedding of `prompt`."""
    prompt: str
    metadata: WeightsMetadata = field(default_factory=WeightsMetadata)
    """What the weights say of themselves."""

    @property
    def uses_reference(self) -> bool:
        """Whether references are made use of, as the metadata or the network says."""
        said = self.metadata.uses_reference
        return self.network.config.reference_attention if said is None else said


def is_checkpoint(folder: Path | str) -> bool:
    """Tell whether a folder claims to be in our format."""
    path = Path(folder) / CONFIG_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def save_checkpoint(
    folder: Path | str,
    network: DifixNetwork,
    *,
    text_embedding: Float[Tensor, "n d"],
    prompt: str,
    metadata: WeightsMetadata | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint, so that a crash at any moment leaves the folder with the earlier one or with this one.

    Both files are written beside their places and flushed to the disk before the first is moved there.

    Args:
        folder: Created if needed; other files in it are left alone.
        dtype: Floating-point type on disk; None keeps each parameter's own.
    """
    folder = Path(folder)
    embedding = text_embedding.reshape(text_embedding.shape[-2:])
    tensors = {TEXT_EMBEDDING: embedding}
    tensors |= {f"network.{name.replace(COMPILED, '')}": value for name, value in network.state_dict().items()}
    tensors = {name: value.detach().to("cpu", dtype or value.dtype).contiguous() for name, value in tensors.items()}
    config: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "prompt": prompt,
        "network": network.config.to_dict(),
        "metadata": (metadata or WeightsMetadata()).to_dict(),
    }
    config[TENSORS_SHA256] = _digest(tensors)
    config[SAVE_ID] = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
    text = json.dumps(config, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_both(folder, tensors, {SAVE_ID: config[SAVE_ID]}, text)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write the checkpoint {folder}: {error}") from error


def _write_both(folder: Path, tensors: dict[str, Tensor], header: dict[str, str], config: str) -> None:
    """Write the two files; between the two moves, the new configuration lies beside its place for `_config_of`."""
    partial = {name: folder / f"{_partial_stem(name)}{os.getpid()}" for name in (WEIGHTS_FILE, CONFIG_FILE)}
    moved = False
    try:
        save_file(tensors, partial[WEIGHTS_FILE], metadata=header)
        partial[CONFIG_FILE].write_text(config, encoding="utf-8")
        for path in (*partial.values(), folder):
            flush_alone(path)
        partial[WEIGHTS_FILE].replace(folder / WEIGHTS_FILE)
        moved = True
        partial[CONFIG_FILE].replace(folder / CONFIG_FILE)
        flush_alone(folder)
    except BaseException:
        for path in partial.values() if not moved else ():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    for name in (WEIGHTS_FILE, CONFIG_FILE):  # What killed processes left behind.
        for path in folder.glob(f"{_partial_stem(name)}*"):
            with suppress(OSError):
                path.unlink()


def _partial_stem(name: str) -> str:
    return f".{name}.partial-"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a checksum of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_checkpoint(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Read a checkpoint to the CPU, in evaluation mode.

    Args:
        folder: What `save_checkpoint` wrote.

    Raises:
        InputError: If the folder is absent, of another format or a newer version, incomplete, or damaged.
    """
    folder = Path(folder)
    config = _config_of(folder)
    network_config = NetworkConfig.from_dict(config["network"])
    metadata = _metadata_of(config, folder / CONFIG_FILE)
    tensors = read_tensors(folder / WEIGHTS_FILE, save_id=config.get(SAVE_ID))
    if TEXT_EMBEDDING not in tensors:
        raise InputError(f"{folder / WEIGHTS_FILE} holds no text embedding: save the checkpoint again")
    embedding = tensors[TEXT_EMBEDDING].to(dtype, copy=True)
    width = network_config.unet.cross_attention_dim
    if embedding.ndim != 2 or embedding.shape[1] != width:
        raise InputError(
            f"the text embedding of {folder} must have width {width}, got the shape {tuple(embedding.shape)}"
        )
    network = empty_network(network_config)
    state = {name.removeprefix("network."): value for name, value in tensors.items() if name != TEXT_EMBEDDING}
    load_strictly(network, state, source=folder / WEIGHTS_FILE, dtype=dtype)
    if TENSORS_SHA256 in config and _digest(tensors) != config[TENSORS_SHA256]:
        raise InputError(f"{folder / WEIGHTS_FILE} is damaged, its checksum does not fit: copy or download it again")
    return Checkpoint(network=network.eval(), text_embedding=embedding, prompt=config["prompt"], metadata=metadata)


def _metadata_of(config: Mapping[str, Any], path: Path) -> WeightsMetadata:
    try:
        return WeightsMetadata.from_dict(config.get("metadata", {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def empty_network(config: NetworkConfig) -> DifixNetwork:
    """Build a network without allocating its parameters; `load_strictly` gives it some.

    Raises:
        InputError: If no network has this configuration.
    """
    try:
        with torch.device("meta"):
            return DifixNetwork(config)
    except (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError, AssertionError) as error:
        # The layers' own checks, of numbers that do not go together.
        raise InputError(f"there is no network of this configuration: {error}") from error


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], *, source: Path | str, dtype: torch.dtype = torch.float32
) -> None:
    """Give a module all its parameters from a state dict.

    Args:
        module: The module; may be on the meta device.

    Raises:
        InputError: If names are missing or unexpected or shapes differ.
    """
    expected = module.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    problems += [
        f"{name} has the shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        raise InputError(f"the weights of {source} do not fit the network: {first_problems(problems)}")
    # Copies, because a file that tensors are mapped to cannot be replaced on every system.
    copies = {name: value.to(dtype, copy=True) for name, value in state.items()}
    module.load_state_dict(copies, strict=True, assign=True)


def read_tensors(path: Path, *, save_id: str | None = None) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Args:
        save_id: If given, the file must carry the same.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get(SAVE_ID)
            if save_id is not None and found != save_id:
                raise InputError(f"{path} and its {CONFIG_FILE} come from different saves: copy the folder again")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: the checkpoint is incomplete") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read {path}, it may be damaged: {error}") from error
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: If the file is absent, not JSON, or not an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}, it may be damaged: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object")
    return values


def _config_of(folder: Path) -> dict[str, Any]:
    """Read the configuration that goes with the weights.

    A save that was interrupted between its two moves has left the configuration of the new weights beside its place.
    """
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            save_id = (file.metadata() or {}).get(SAVE_ID)
    except (SafetensorError, OSError):
        return _read_config(folder)  # Reading the weights will say what is wrong with them.
    for path in sorted(folder.glob(f"{_partial_stem(CONFIG_FILE)}*")):
        with suppress(InputError):
            config = read_json(path)
            if save_id is not None and config.get(SAVE_ID) == save_id:
                return _checked_config(config, path)
    return _read_config(folder)


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder {folder}")
    return _checked_config(read_json(folder / CONFIG_FILE), folder / CONFIG_FILE)


def _checked_config(config: dict[str, Any], path: Path) -> dict[str, Any]:
    folder = path.parent
    if config.get("format") != FORMAT:
        raise InputError(f"{folder} is not a {FORMAT} checkpoint: its {CONFIG_FILE} does not say so")
    if config.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder} has format version {config.get('format_version')}, this program reads {FORMAT_VERSION}"
        )
    problems = [f'no "{name}"' for name in ("network", "prompt") if name not in config]
    if problems:
        raise InputError(f"{path} is incomplete: {first_problems(problems)}")
    return config
