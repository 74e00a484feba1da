"""What turns rendered views into better ones.

The network is imported when one is loaded: that takes longer than everything else together, and a run without a fixer
needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
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


class OffloadedFixer:
    """A fixer whose network is on its device only while it is at hand, and on the CPU at all other times.

    So a splat has a GPU's memory to itself between rounds, at the price of two moves per round. A call that comes while
    the network is away fetches it for itself.

    Args:
        fixer: What fixes; it is moved to the CPU at once.
        device: Where it works.
    """

    def __init__(self, fixer: DifixFixer, device: str) -> None:
        self.fixer = fixer
        self.device = torch.device(device)
        self._depth = 0
        self._move("cpu")

    def _move(self, device: str | torch.device) -> None:
        self.fixer.pipeline.to(device)
        if self.device.type == "cuda" and torch.device(device).type == "cpu":
            # What the network held is still PyTorch's; it goes back to the GPU, in one piece for whoever is next.
            torch.cuda.empty_cache()

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Keep the network on its device for the block; inner blocks change nothing."""
        if self._depth == 0:
            self._move(self.device)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._move("cpu")

    def __call__(
        self, rendered: Float[Tensor, "b h w c=3"], references: Float[Tensor, "b h2 w2 c=3"]
    ) -> Float[Tensor, "b h w c=3"]:
        """Fix rendered views; the result is where they are."""
        with self.at_hand():
            return self.fixer(rendered, references)


def at_hand(fixer: ViewFixer) -> AbstractContextManager[None]:
    """A block in which a fixer is called again and again; those that are kept elsewhere in between stay for it."""
    keeps = getattr(fixer, "at_hand", None)
    return nullcontext() if keeps is None else keeps()


def load_fixer(
    source: str, *, device: str, offload: bool = False, precision: Literal["float32", "bfloat16"] = "float32"
) -> ViewFixer:
    """The fixer that a word or a path names.

    Args:
        source: ``none`` for `IdentityFixer`; everything else is for `DifixPipeline.from_pretrained`: ``default`` for
            the weights that come with the project, or a folder, file or hub name.
        device: Where the network runs.
        offload: Whether it waits on the CPU while nothing is fixed; without effect where it runs there.
        precision: Floating-point type of the network.
    """
    if source == "none":
        return IdentityFixer()
    from difix_model.pipeline import DifixPipeline

    offload = offload and torch.device(device).type != "cpu"
    pipeline = DifixPipeline.from_pretrained(
        source, device="cpu" if offload else device, dtype=getattr(torch, precision)
    )
    return OffloadedFixer(DifixFixer(pipeline), device) if offload else DifixFixer(pipeline)
