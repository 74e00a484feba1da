"""Difix as a fixer, and one that leaves a GPU's memory between rounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from difix3d.fixers.contract import FixRequest, FixResult

if TYPE_CHECKING:
    from difix_model.pipeline import DifixPipeline


class DifixFixer:
    """Difix, with the nearest captured photos as its references, all in one call.

    Args:
        pipeline: The network and its gate, on the device where it is to run.
        strength: Fraction of the fix, in [0, 1].
    """

    def __init__(self, pipeline: DifixPipeline, *, strength: float = 1.0) -> None:
        self.pipeline, self.strength = pipeline, strength

    def __call__(self, request: FixRequest) -> FixResult:
        """Fix rendered views, with their references if the weights know any; the gate sees their opacity."""
        references = request.references if self.pipeline.uses_reference else None
        with torch.no_grad():
            gated = self.pipeline.fix_with_verdicts(
                request.rgb, references, alpha=request.alpha, strength=self.strength
            )
        return FixResult(rgb=gated.rgb.clamp(0, 1), verdicts=gated.verdicts)


class OffloadedFixer:
    """A fixer whose network is on its device only while it is resident, and on the CPU at all other times.

    So a splat has a GPU's memory to itself between rounds, at the price of two moves per round. A call that comes while
    the network is away fetches it for itself.

    Args:
        fixer: What fixes; it is moved to the CPU at once.
    """

    def __init__(self, fixer: DifixFixer, device: str) -> None:
        self.fixer = fixer
        self.device = torch.device(device)
        self._num_blocks = 0
        self._move("cpu")

    def _move(self, device: str | torch.device) -> None:
        self.fixer.pipeline.to(device)
        if self.device.type == "cuda" and torch.device(device).type == "cpu":
            # What the network held is still PyTorch's; it goes back to the GPU, in one piece for whoever is next.
            torch.cuda.empty_cache()

    @contextmanager
    def resident(self) -> Iterator[None]:
        """Keep the network on its device for the block; inner blocks change nothing."""
        if self._num_blocks == 0:
            self._move(self.device)
        self._num_blocks += 1
        try:
            yield
        finally:
            self._num_blocks -= 1
            if self._num_blocks == 0:
                self._move("cpu")

    def __call__(self, request: FixRequest) -> FixResult:
        """Fix rendered views; the result is where they are."""
        with self.resident():
            return self.fixer(request)
