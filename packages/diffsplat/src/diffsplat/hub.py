"""Where weights lie: a folder, or a repository of the Hugging Face hub or its local cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from diffsplat.errors import InputError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

BASE_FILES = [
    "model_index.json",
    "*/config.json",
    "*/scheduler_config.json",
    "*/*.safetensors",
    "*/*.safetensors.index.json",
    "*/*.json",
    "*/*.txt",
    "*/*.model",
    "config.json",
    "diffusion_pytorch_model.safetensors",
]
"""What is fetched of a base model: weights, configurations and tokenizers, never code and never pickles."""


def tag_files(tags: Sequence[str]) -> list[str]:
    """What is fetched of the published repository for some of its folders."""
    endings = ("*.safetensors", "*.json")
    return [f"{tag}/checkpoints/{depth}{ending}" for tag in tags for depth in ("*/", "*/*/") for ending in endings]


def is_hub_id(source: Path | str) -> bool:
    """Tell whether a source names a repository of the hub; what lies on disk by that name goes first."""
    return bool(HUB_ID.fullmatch(str(source))) and not Path(source).exists()


def repository_folder(
    source: Path | str, patterns: Sequence[str], *, revision: str | None = None, fetch: str = ""
) -> Path:
    """The folder that holds a repository; one of the hub is downloaded, or found in the cache when offline.

    Args:
        source: Folder or hub id.
        patterns: Which files are wanted of a hub repository.
        revision: Branch, tag or commit of a hub repository.
        fetch: The command that fetches it, for the error.

    Raises:
        InputError: There is no such folder, and it is no hub id or cannot be had.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not is_hub_id(source):
        raise InputError(f"there is no folder {source}: give a folder, a hub id, or sd15, pas or sd35m")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # The client raises its own, the network's and the file system's errors.
        raise InputError(f"the hub repository {source} cannot be had: {_reason(error, fetch)}") from error


def _reason(error: Exception, fetch: str) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return "accept its terms on its page at the hub and log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it does not exist, or is private: check the name, or log in with `hf auth login`"
    how = f"fetch it once while online with `{fetch}`, or give a local folder" if fetch else "give a local folder"
    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set and the cache ({constants.HF_HUB_CACHE}) does not hold it: {how}"
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{said}; check the connection, or {how}"
