"""What turns rendered views into better ones."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.pipeline import DifixPipeline


@runtime_checkable
class ViewFixer(Protocol):
    """Anything that fixes a batch of rendered views, each with its own captured reference."""

    def __call__(
        self, rendered: Float[Tensor, "b h w c=3"], references: Float[Tensor, "b h2 w2 c=3"]
    ) -> Float[Tensor, "b h w c=3"]:
        """Fix rendered views; sRGB in [0, 1] in and out, order and size kept."""
        ...


class IdentityFixer:
    """Changes nothing: the control that tells what the loop does by itself."""

    def __call__(
        self, rendered: Float[Tensor, "b h w c=3"], references: Float[Tensor, "b h2 w2 c=3"]
    ) -> Float[Tensor, "b h w c=3"]:
        """Return the rendered views as they are."""
        return rendered


class DifixFixer:
    """Difix, with the nearest captured photo as its reference.

    Args:
        pipeline: The network and its checkpoint's gate, on the device where it is to run.
    """

    def __init__(self, pipeline: DifixPipeline) -> None:
        self.pipeline = pipeline

    def __call__(
        self, rendered: Float[Tensor, "b h w c=3"], references: Float[Tensor, "b h2 w2 c=3"]
    ) -> Float[Tensor, "b h w c=3"]:
        """Fix rendered views, with their references if the weights know any."""
        with torch.no_grad():
            return self.pipeline.fix(rendered, references if self.pipeline.uses_reference else None).clamp(0, 1)


def load_fixer(source: str, *, device: str) -> ViewFixer:
    """The fixer that a word or a path names.

    Args:
        source: ``none`` for `IdentityFixer`; everything else is for `DifixPipeline.from_pretrained`: ``default`` for
            the weights that come with the project, or a folder, file or hub name.
        device: Where the network runs.
    """
    if source == "none":
        return IdentityFixer()
    return DifixFixer(DifixPipeline.from_pretrained(source, device=device))
