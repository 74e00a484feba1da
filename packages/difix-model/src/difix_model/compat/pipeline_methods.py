"""What `DifixPipeline` can do beside fixing: move to a device, be saved, be published."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from difix_model.formats.checkpoint import Checkpoint
from difix_model.formats.publishing import push_checkpoint, save_with_card
from difix_model.inference.runner import NetworkRunner
from difix_model.network import DifixNetwork

P = TypeVar("P", bound="PipelineMethods")


class PipelineMethods(ABC):
    """Methods of `DifixPipeline` that do not fix anything; some only for scripts written for a diffusers pipeline."""

    network: DifixNetwork
    runner: NetworkRunner
    text_embedding: Tensor
    prompt: str
    timestep: int
    uses_reference: bool
    metadata: dict[str, Any]
    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def __call__(self, *images: Any, **options: Any) -> Any:
        """Fix images."""

    def to(self: P, *targets: str | torch.device | torch.dtype) -> P:
        """Move the pipeline to a device, a floating-point type, or both, in place; returns itself."""
        for target in targets:
            if isinstance(target, torch.dtype):
                self.dtype = target
            else:
                self.device = torch.device(target)
        self.network = self.network.to(device=self.device, dtype=self.dtype)
        self.text_embedding = self.text_embedding.to(device=self.device, dtype=self.dtype)
        self.runner.cache.clear()  # Latents of references are kept where, and as precisely as, they were made.
        return self

    def set_progress_bar_config(self, **_: Any) -> None:  # noqa: B027 (nothing to override)
        """Do nothing, since there is no progress bar; scripts for a diffusers pipeline call it."""

    def checkpoint(self) -> Checkpoint:
        """Return the weights with all that is needed to run or save them; the network is shared, not copied."""
        metadata = self.metadata | {"uses_reference": self.uses_reference, "timestep": self.timestep}
        return Checkpoint(
            network=self.network, text_embedding=self.text_embedding, prompt=self.prompt, metadata=metadata
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Save the weights in our format with a model card that carries their license; `from_pretrained` loads them.

        The adapters are folded into the layers, and parameters keep the pipeline's floating-point type, so that the
        loaded pipeline computes the same to the bit.

        Args:
            folder: Created if needed; a checkpoint in it is replaced.

        Raises:
            InputError: If the folder cannot be written.
        """
        save_with_card(folder, self.checkpoint(), name=Path(folder).resolve().name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload Difix weights",
    ) -> str:
        """Upload what `save_pretrained` saves to a repository of the hub. Weights carry licenses: see the model card.

        Args:
            repo_id: "owner/name"; made if it does not exist.
            private: Whether a new repository is private; None leaves it to the owner's settings.
            token: Access token; None takes the one that is logged in.
            revision: Branch to upload to; None means the main one.
            commit_message: First line of the commit's message.

        Returns:
            The address of the commit.

        Raises:
            InputError: If the hub cannot be reached or refuses.
        """
        return push_checkpoint(
            repo_id,
            self.checkpoint(),
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )
