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
from difix_model.network import DifixNetwork

FORMAT = "difix-model"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TEXT_EMBEDDING = "text_embedding"
SAVE_ID = "save_id"
"""Stands in both files of a save, so that a half-overwritten folder is recognised."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with all that is needed to run it."""

    network: DifixNetwork
    text_embedding: Float[Tensor, "n d"]
    """Embedding of `prompt`."""
    prompt: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """Free entries of `config.json`: licence, origin, "uses_reference", "gate"."""


def is_checkpoint(folder: Path | str) -> bool:
    """Tell whether a folder claims to be in our format."""
    path = Path(folder) / CONFIG_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def save_checkpoint(
    folder: Path | str,
    network: DifixNetwork,
    *,
    text_embedding: Float[Tensor, "n d"],
    prompt: str,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint; each file is written beside its place first and then moved there.

    Args:
        folder: Created if needed; other files in it are left alone.
        network: What to save, adapters as separate parameters.
        text_embedding: Embedding of the prompt.
        prompt: What the embedding stands for.
        metadata: Plain values for JSON.
        dtype: Floating-point type on disk; None keeps each parameter's own.

    Raises:
        InputError: If the folder cannot be written.
    """
    folder = Path(folder)
    embedding = text_embedding.reshape(text_embedding.shape[-2:])
    tensors = {TEXT_EMBEDDING: embedding} | {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors = {name: value.detach().to("cpu", dtype or value.dtype).contiguous() for name, value in tensors.items()}
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "prompt": prompt,
        "network": network.config.to_dict(),
        "metadata": dict(metadata or {}),
    }
    config[SAVE_ID] = _digest(config, tensors)
    partial = {name: folder / f".{name}.partial-{os.getpid()}" for name in (WEIGHTS_FILE, CONFIG_FILE)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial[WEIGHTS_FILE], metadata={SAVE_ID: config[SAVE_ID]})
        partial[CONFIG_FILE].write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name, path in partial.items():
            path.replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write the checkpoint {folder}: {error}") from error
    finally:
        for path in partial.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _digest(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return what tells this configuration with these weights from any other."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def load_checkpoint(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Read a checkpoint to the CPU, in evaluation mode.

    Args:
        folder: What `save_checkpoint` wrote.
        dtype: Floating-point type of the network in memory.

    Raises:
        InputError: If the folder is absent, of another format or a newer version, incomplete, or damaged.
    """
    folder = Path(folder)
    config = _read_config(folder)
    network_config = NetworkConfig.from_dict(config["network"])
    tensors = read_tensors(folder / WEIGHTS_FILE, save_id=config.get(SAVE_ID))
    if TEXT_EMBEDDING not in tensors:
        raise InputError(f"{folder / WEIGHTS_FILE} holds no text embedding: save the checkpoint again")
    embedding = tensors.pop(TEXT_EMBEDDING).to(dtype, copy=True)
    width = network_config.unet.cross_attention_dim
    if embedding.ndim != 2 or embedding.shape[1] != width:
        raise InputError(
            f"the text embedding of {folder} must have width {width}, got the shape {tuple(embedding.shape)}"
        )
    network = empty_network(network_config)
    state = {name.removeprefix("network."): value for name, value in tensors.items()}
    load_strictly(network, state, source=folder / WEIGHTS_FILE, dtype=dtype)
    return Checkpoint(
        network=network.eval(),
        text_embedding=embedding,
        prompt=config["prompt"],
        metadata=config.get("metadata", {}),
    )


def empty_network(config: NetworkConfig) -> DifixNetwork:
    """Build a network without allocating its parameters; `load_strictly` gives it some."""
    with torch.device("meta"):
        return DifixNetwork(config)


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], *, source: Path | str, dtype: torch.dtype = torch.float32
) -> None:
    """Give a module all its parameters from a state dict.

    Args:
        module: The module; may be on the meta device.
        state: Its parameters by name.
        source: Where they come from, for the message.
        dtype: Floating-point type that the parameters get.

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
        path: The file.
        save_id: If given, the file must carry the same.

    Raises:
        InputError: If it is absent, damaged, or from another save.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get(SAVE_ID)
            if save_id is not None and found != save_id:
                raise InputError(f"{path} and its {CONFIG_FILE} come from different saves: copy the folder again")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: the checkpoint is incomplete") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read {path}, it may be damaged: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: If the file is absent, not JSON, or not an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}, it may be damaged: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object")
    return values


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder {folder}")
    config = read_json(folder / CONFIG_FILE)
    if config.get("format") != FORMAT:
        raise InputError(f"{folder} is not a {FORMAT} checkpoint: its {CONFIG_FILE} does not say so")
    if config.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{folder} has format version {config.get('format_version')}, this program reads {FORMAT_VERSION}"
        )
    problems = [f'no "{name}"' for name in ("network", "prompt") if name not in config]
    if problems:
        raise InputError(f"{folder / CONFIG_FILE} is incomplete: {first_problems(problems)}")
    return config
