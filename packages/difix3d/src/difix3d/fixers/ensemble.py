"""Several splats of the same photos as a fixer: a view becomes what they show together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from difix3d.ensemble import Combine, agreement, confidence_of_fix, ensemble_view
from difix3d.fixers.contract import FixRequest, FixResult, resident

if TYPE_CHECKING:
    from difix3d.fixers.contract import ViewFixer
    from splat_render.cameras import Camera
    from splat_render.output import RenderOutput


class EnsembleFixer:
    """Replaces renders by the median or mean of several splats; its confidence is their agreement.

    Args:
        members: From a camera to a render, one per splat; for example trainers' `render`.
        combine: How their renders become one.
        disagreement: Standard deviation of their colors, in [0, 1], at which a pixel's confidence is exp(-1).
        fixer: Another fixer that works on what they show together; it is relied on where it decides between them, and
            less where it contradicts them all (`ensemble.confidence_of_fix`).

    Raises:
        ValueError: There is no member.
    """

    def __init__(
        self,
        members: Sequence[Callable[[Camera], RenderOutput]],
        *,
        combine: Combine = "median",
        disagreement: float = 0.1,
        fixer: ViewFixer | None = None,
    ) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = tuple(members)
        self.combine: Combine = combine
        self.disagreement = disagreement
        self.fixer = fixer

    @contextmanager
    def resident(self) -> Iterator[None]:
        """Keep the other fixer where it works for the block."""
        if self.fixer is None:
            yield
            return
        with resident(self.fixer):
            yield

    def __call__(self, request: FixRequest) -> FixResult:
        """What the members show from the request's cameras; the request's own renders do not count."""
        views = [ensemble_view([render(camera) for render in self.members], self.combine) for camera in request.cameras]
        rgb = torch.stack([view.rgb for view in views]).to(request.rgb)
        deviation = torch.stack([view.deviation for view in views]).to(request.rgb)
        if self.fixer is None:
            return FixResult.of(request, rgb, agreement(deviation, self.disagreement))
        together = FixRequest(
            rgb=rgb,
            alpha=torch.stack([view.alpha for view in views]).to(request.rgb),
            cameras=request.cameras,
            references=request.references,
        )
        result = self.fixer(together)
        confidence = torch.stack(
            [
                confidence_of_fix(one, fixed, spread, self.disagreement)
                for one, fixed, spread in zip(rgb, result.rgb, deviation, strict=True)
            ]
        )
        if result.confidence is not None:
            confidence = confidence * result.confidence
        return FixResult(rgb=result.rgb, verdicts=result.verdicts, confidence=confidence)
