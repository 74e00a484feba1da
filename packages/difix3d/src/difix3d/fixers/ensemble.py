"""Several splats of the same photos as a fixer: a view becomes what they show together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from difix3d.ensemble import Combine, ShownView, confidence_of_fix, ensemble_view
from difix3d.fixers.contract import FixRequest, FixResult, resident

if TYPE_CHECKING:
    from difix3d.fixers.contract import ViewFixer
    from splat_render.cameras import Camera
    from splat_render.output import RenderOutput


class _Shown(NamedTuple):
    """A render of a request."""

    rgb: Tensor
    alpha: Tensor


class EnsembleFixer:
    """Replaces renders by the median or mean of several splats.

    Args:
        members: From a camera to a render, one per splat; for example trainers' `render`.
        with_request: The request's own renders are those of one splat more, opaque where their opacity is not known.
        fixer: Another fixer that works on what they show together; it is relied on less where it contradicts them all
            (`ensemble.confidence_of_fix`).
        contradiction: How far from what they all show a pixel's confidence is exp(-1), in [0, 1].

    Raises:
        ValueError: There is no member.
    """

    def __init__(
        self,
        members: Sequence[Callable[[Camera], RenderOutput]],
        *,
        with_request: bool = False,
        combine: Combine = "median",
        fixer: ViewFixer | None = None,
        contradiction: float = 0.1,
    ) -> None:
        if not members and not with_request:
            raise ValueError("an ensemble needs at least one member")
        self.members = tuple(members)
        self.with_request = with_request
        self.combine: Combine = combine
        self.fixer = fixer
        self.contradiction = contradiction

    @contextmanager
    def resident(self) -> Iterator[None]:
        """Keep the other fixer where it works for the block."""
        if self.fixer is None:
            yield
            return
        with resident(self.fixer):
            yield

    def __call__(self, request: FixRequest) -> FixResult:
        """What the members show from the request's cameras."""
        shown: list[list[ShownView]] = [[render(camera) for render in self.members] for camera in request.cameras]
        if self.with_request:
            alpha = request.rgb.new_ones(request.rgb.shape[:3]) if request.alpha is None else request.alpha
            for outputs, rgb, opacity in zip(shown, request.rgb, alpha, strict=True):
                outputs.append(_Shown(rgb, opacity[..., None]))
        views = [ensemble_view(outputs, self.combine) for outputs in shown]
        rgb = torch.stack([view.rgb for view in views]).to(request.rgb)
        if self.fixer is None:
            return FixResult.of(request, rgb)
        together = FixRequest(
            rgb=rgb,
            alpha=torch.stack([view.alpha for view in views]).to(request.rgb),
            cameras=request.cameras,
            references=request.references,
        )
        result = self.fixer(together)
        deviation = torch.stack([view.deviation for view in views]).to(request.rgb)
        confidence = confidence_of_fix(rgb, result.rgb, deviation, self.contradiction)
        if result.confidence is not None:
            confidence = confidence * result.confidence
        return FixResult(rgb=result.rgb, verdicts=result.verdicts, confidence=confidence)
