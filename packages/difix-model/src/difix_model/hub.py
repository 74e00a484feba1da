"""Where weights lie: a folder on disk, or a repository of the Hugging Face hub or its local cache."""

import re
from pathlib import Path

from difix_model.errors import InputError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

WANTED_FILES = [
    "model_index.json",
    "config.json",
    "model.safetensors",
    "*/config.json",
    "*/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "tokenizer/*.json",
    "tokenizer/*.txt",
]
"""What is fetched of a repository: weights and configurations, never code."""


def weights_folder(source: Path | str, *, revision: str | None = None) -> Path:
    """Return the folder that holds the weights; a hub repository is downloaded, or found in the cache when offline.

    Args:
        source: Folder, or hub id such as `nvidia/difix`.
        revision: Branch, tag or commit of a hub repository.

    Raises:
        InputError: If there is no such folder and it is no hub id, or the repository cannot be had.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or not HUB_ID.fullmatch(str(source)):
        raise InputError(f"no weights at {source}: give a folder, a hub id such as nvidia/difix_ref, or a .pkl file")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=WANTED_FILES))
    except Exception as error:  # The client raises its own, the network's and the file system's errors.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"there is no folder {source}, and the hub repository of that name cannot be had ({reason}): "
            "check the name and the connection, or give a local folder"
        ) from error
