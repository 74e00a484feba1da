"""Where weights lie: a folder on disk, or a repository of the Hugging Face hub or its local cache."""

import re
from pathlib import Path

from difix_model.errors import InputError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

WANTED_FILES = [
    "model_index.json",
    "difix_model.json",
    "config.json",
    "model.safetensors",
    "README.md",
    "*/config.json",
    "*/scheduler_config.json",
    "*/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "tokenizer/*.json",
    "tokenizer/*.txt",
]
"""What is fetched of a repository: weights, configurations and the model card, never code and never pickles."""


def is_hub_id(source: Path | str) -> bool:
    """Tell whether a source names a repository of the hub; what lies on disk by that name goes first."""
    return bool(HUB_ID.fullmatch(str(source))) and not Path(source).exists()


def weights_folder(source: Path | str, *, revision: str | None = None) -> Path:
    """Return the folder that holds the weights; a hub repository is downloaded, or found in the cache when offline.

    Args:
        source: Folder, or hub id such as `nvidia/difix`.

    Raises:
        InputError: If there is no such folder and it is no hub id, the repository cannot be had, or a revision is
            given for a folder.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"{source} is a folder, which has no revision {revision}: leave the revision out")
        return folder
    if not is_hub_id(source):
        raise InputError(f"no weights at {source}: give a folder, a hub id such as nvidia/difix_ref, or a .pkl file")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=WANTED_FILES))
    except Exception as error:  # The client raises its own, the network's and the file system's errors.
        raise InputError(
            f"there is no folder {source}, and the hub repository of that name cannot be had"
            f"{_of(revision)}: {_reason(error)}"
        ) from error


def _of(revision: str | None) -> str:
    return "" if revision is None else f" at revision {revision}"


def _reason(error: Exception) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return "accept its terms on its page at the hub and log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it does not exist, or is private: check the name, or log in with `hf auth login`"
    if constants.HF_HUB_OFFLINE:
        return (
            f"HF_HUB_OFFLINE is set and the cache ({constants.HF_HUB_CACHE}) does not hold it: "
            "download it once while online, or give a local folder"
        )
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{said}; check the name and the connection, or give a local folder"
