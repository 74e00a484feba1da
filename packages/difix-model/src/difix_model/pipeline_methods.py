"""What `DifixPipeline` can do beside fixing: move to a device."""

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch
from torch import Tensor

from difix_model.network import DifixNetwork

P = TypeVar("P", bound="PipelineMethods")


class PipelineMethods(ABC):
    """Methods of `DifixPipeline` that do not fix anything; some only for scripts written for a diffusers pipeline."""

    network: DifixNetwork
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
        return self

    def set_progress_bar_config(self, **_: Any) -> None:  # noqa: B027 (nothing to override)
        """Do nothing, since there is no progress bar; scripts for a diffusers pipeline call it."""
