"""The novel views of one round: where they are, what was rendered, what the fixer made of it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from difix3d.loop.config import MixtureConfig, PoolConfig
from difix_model.gate.verdict import FixVerdict, verdict_summary
from splat_recon.views.view_set import TrainingView, ViewSet
from splat_render.cameras import Camera

MIN_COVERAGE = 0.01
"""A fixed view of which a smaller part counts is left out: it would teach nothing but noise at its few pixels."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class NovelView:
    """One view that nobody captured."""

    camera: Camera
    """Where it is; intrinsics and size are those of its reference."""

    reference_name: str
    """Name of the captured view that the fixer looked at, the nearest one of several."""

    rendered: Float[Tensor, "h w 3"]
    """What the splat showed, sRGB in [0, 1]."""

    fixed: Float[Tensor, "h w 3"]
    """What the fixer made of it, sRGB in [0, 1]."""

    alpha: Float[Tensor, "h w 1"]
    """The render's opacity in [0, 1]."""

    verdict: FixVerdict
    """What became of the fix: how much it changed, how much was let through, and why not all."""

    confidence: Float[Tensor, "h w"] | None = None
    """How far each pixel is relied on, in [0, 1]: by the fixer that made it, and by what captured views know of the
    place that it shows (`trust`); None: all alike."""

    def pixel_weight(self, config: MixtureConfig) -> Float[Tensor, "h w"]:
        """How much each pixel of the fixed view is trusted, in [0, 1]."""
        alpha = self.alpha[..., 0]
        weight = (alpha > config.alpha_threshold).to(self.fixed.dtype)
        if config.soft_alpha:
            weight = weight * alpha.clamp(0, 1)
        if config.agreement is not None:
            difference = (self.fixed - self.rendered).abs().mean(dim=-1) / config.agreement
            weight = weight / (1 + difference**2)
        if self.confidence is not None:
            weight = weight * self.confidence
        return weight


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

    def summary(self) -> str:
        """What became of the fixes, in a sentence."""
        return verdict_summary([view.verdict for view in self.views], "novel view")

    def training_views(self, config: MixtureConfig, *, decay: float = 1.0) -> list[TrainingView]:
        """The fixed views to train on: they count where the render was opaque, and as the config says.

        Args:
            config: What counts how much.
            decay: A further factor of all of them.

        Returns:
            Those that have enough pixels that count.
        """
        views = []
        for view in self.views:
            pixel_weight = view.pixel_weight(config)
            if float((pixel_weight > 0).to(pixel_weight.dtype).mean()) >= MIN_COVERAGE:
                weight = config.novel_weight * decay
                views.append(TrainingView(camera=view.camera, rgb=view.fixed, weight=weight, pixel_weight=pixel_weight))
        return views


Pool = tuple[NovelViews, ...]
"""Rounds whose views take part in training, the newest last."""


def pooled(pool: Pool, newest: NovelViews, config: PoolConfig) -> Pool:
    """The pool with a new round in it; the oldest rounds leave it where it is full."""
    return (*pool, newest)[-config.num_rounds :]


def pool_view_set(pool: Pool, mixture: MixtureConfig, config: PoolConfig) -> ViewSet | None:
    """The views of a pool to train on, older rounds with less weight; None if no view has pixels that count."""
    views = []
    for age, novel in enumerate(reversed(pool)):
        views = novel.training_views(mixture, decay=config.decay**age) + views
    return ViewSet(views) if views else None
