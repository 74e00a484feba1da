"""The novel views of one round: where they are, what was rendered, what the fixer made of it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from splat_recon.geometry.cameras import Camera
from splat_recon.views.view_set import TrainingView, ViewSet

MIN_COVERAGE = 0.01
"""A fixed view of which a smaller part counts is left out: it would teach nothing but noise at its few pixels."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class NovelView:
    """One view that nobody captured."""

    camera: Camera
    """Where it is; intrinsics and size are those of its reference."""

    reference_name: str
    """Name of the captured view that the fixer looked at."""

    rendered: Float[Tensor, "h w 3"]
    """What the splat showed, sRGB in [0, 1]."""

    fixed: Float[Tensor, "h w 3"]
    """What the fixer made of it, sRGB in [0, 1]."""

    alpha: Float[Tensor, "h w 1"]
    """The render's opacity in [0, 1]."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class NovelViews:
    """All novel views of one round."""

    round_index: int
    """The round that made them, from 0."""

    views: tuple[NovelView, ...]
    """The views, in the order of the targets."""

    @property
    def T_world_cam(self) -> Float64[np.ndarray, "n 4 4"]:
        """Their poses."""
        return np.stack([view.camera.T_world_cam for view in self.views])

    def view_set(self, *, weight: float, alpha_threshold: float) -> ViewSet | None:
        """The fixed views to train on: each counts by `weight`, and only where the render was opaque.

        Args:
            weight: Factor of the loss.
            alpha_threshold: Pixels count where the opacity is above this.

        Returns:
            None if no view has enough pixels that count.
        """
        views = []
        for view in self.views:
            pixel_weight = (view.alpha[..., 0] > alpha_threshold).to(view.fixed.dtype)
            if float(pixel_weight.mean()) >= MIN_COVERAGE:
                views.append(TrainingView(camera=view.camera, rgb=view.fixed, weight=weight, pixel_weight=pixel_weight))
        return ViewSet(views) if views else None
