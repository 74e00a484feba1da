"""The contract of a fixer: what it is asked, what it answers. Any callable of this form is a fixer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.gate.verdict import FixVerdict
from splat_render.cameras import Camera


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FixRequest:
    """Rendered views of one size to fix, and what is known of them."""

    rgb: Float[Tensor, "b h w c=3"]
    """The renders, sRGB in [0, 1]."""

    alpha: Float[Tensor, "b h w"] | None
    """Their opacity in [0, 1]; None where it is not known."""

    cameras: tuple[Camera, ...]
    """Where each was rendered, in the scene's frame."""

    references: tuple[tuple[Float[Tensor, "_h _w 3"], ...], ...]
    """For each any number of captured photos, nearest first, of any size; sRGB in [0, 1]."""

    def __post_init__(self) -> None:
        if not len(self.rgb) == len(self.cameras) == len(self.references):
            raise ValueError(
                f"a request needs a camera and a tuple of references per render, got {len(self.rgb)} renders, "
                f"{len(self.cameras)} cameras and {len(self.references)} tuples of references"
            )

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FixResult:
    """What became of a request; order and sizes are the request's."""

    rgb: Float[Tensor, "b h w c=3"]
    """The fixed views, sRGB in [0, 1]."""

    verdicts: tuple[FixVerdict, ...]
    """For each how much it changed, how much of that was let through, and why not all."""

    confidence: Float[Tensor, "b h w"] | None = None
    """How much the fixer relies on each pixel, in [0, 1]: a factor of its weight in training. None: on all alike."""

    @classmethod
    def of(
        cls,
        request: FixRequest,
        rgb: Float[Tensor, "b h w c=3"],
        confidence: Float[Tensor, "b h w"] | None = None,
    ) -> FixResult:
        """The result of a fixer that holds nothing back: verdicts are measured on the change.

        Args:
            rgb: The fixed views, sRGB in [0, 1].
            confidence: How much the fixer relies on each pixel, in [0, 1]; None: on all alike.
        """
        changes = (rgb - request.rgb).abs().mean(dim=(1, 2, 3), dtype=torch.float64).tolist()
        verdicts = tuple(
            FixVerdict(proposed_change=change, applied_change=change, reason="passed" if change else "no_change")
            for change in changes
        )
        return cls(rgb=rgb, verdicts=verdicts, confidence=confidence)


@runtime_checkable
class ViewFixer(Protocol):
    """Anything that fixes a batch of rendered views of one size."""

    def __call__(self, request: FixRequest, /) -> FixResult:
        """Fix rendered views; order and sizes are kept."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FixedView:
    """One view of a result."""

    rgb: Float[Tensor, "h w c=3"]
    """The fixed view, sRGB in [0, 1]."""

    verdict: FixVerdict
    """How much it changed, how much was let through, and why not all."""

    confidence: Float[Tensor, "h w"] | None = None
    """How much the fixer relies on each pixel, in [0, 1]; None: on all alike."""


def views_of(result: FixResult) -> list[FixedView]:
    """A result view by view."""
    confidences: Sequence[Tensor | None] = (
        [None] * len(result.rgb) if result.confidence is None else result.confidence.unbind()
    )
    return [
        FixedView(rgb=rgb, verdict=verdict, confidence=confidence)
        for rgb, verdict, confidence in zip(result.rgb.unbind(), result.verdicts, confidences, strict=True)
    ]


def resident(fixer: ViewFixer) -> AbstractContextManager[None]:
    """A block in which a fixer is called again and again; one that waits elsewhere in between stays for it."""
    stays = getattr(fixer, "resident", None)
    return nullcontext() if stays is None else stays()
