"""Weights in our own format with their model card, in a folder or on the hub."""

import tempfile
from pathlib import Path

import torch

from difix_model.errors import InputError
from difix_model.formats.checkpoint import Checkpoint, save_checkpoint
from difix_model.formats.hub import HUB_ID
from difix_model.formats.model_card import model_card

CARD_FILE = "README.md"


def save_with_card(folder: Path | str, checkpoint: Checkpoint, *, name: str, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint folder of ours with a model card.

    Args:
        folder: Created if needed; a checkpoint in it is replaced.
        name: What the card's example loads: a folder or a hub id.
        dtype: Floating-point type on disk; None keeps each parameter's own.
    """
    folder = Path(folder)
    save_checkpoint(
        folder,
        checkpoint.network,
        text_embedding=checkpoint.text_embedding,
        prompt=checkpoint.prompt,
        metadata=checkpoint.metadata,
        dtype=dtype,
    )
    try:
        (folder / CARD_FILE).write_text(model_card(checkpoint, name=name, dtype=dtype), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {folder / CARD_FILE}: {error}") from error


def push_checkpoint(
    repo_id: str,
    checkpoint: Checkpoint,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload Difix weights",
    dtype: torch.dtype | None = None,
) -> str:
    """Upload a checkpoint in our format to the hub, with a model card; the repository is made if there is none.

    Args:
        repo_id: "owner/name".
        private: Whether a new repository is private; None leaves it to the owner's settings.
        token: Access token; None takes the one that is logged in.
        revision: Branch to upload to; None means the main one.
        dtype: Floating-point type in the repository; None keeps each parameter's own.

    Returns:
        The address of the commit.

    Raises:
        InputError: If the name is none, or the hub cannot be reached or refuses.
    """
    if not HUB_ID.fullmatch(repo_id):
        raise InputError(f'a repository of the hub is named "owner/name", got "{repo_id}"')
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        save_with_card(temporary, checkpoint, name=repo_id, dtype=dtype)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=temporary, revision=revision, commit_message=commit_message
            )
        except Exception as error:  # The client raises its own, the network's and the file system's errors.
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(
                f"cannot upload to {repo_id}: {said}; check the name, the connection and your access (`hf auth login`)"
            ) from error
    return str(commit.commit_url)
