"""The novel views of one round: where they are, what was rendered, what the fixer made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from difix3d.loop.config import MixtureConfig
from difix_model.gate.verdict import VISIBLE, FixVerdict, verdict_summary
from splat_recon.views.view_set import TrainingView, ViewSet
from splat_render.cameras import Camera

if TYPE_CHECKING:
    from difix3d.fixers.batches import RenderedView
    from difix3d.fixers.contract import FixedView
    from difix3d.loop.confidence import PixelConfidence
    from splat_recon.scene.scene import View
    from splat_recon.views.mixture import ViewMixture

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
    surface that it shows (`PixelConfidence`); None: all alike."""

    def pixel_weight(self, config: MixtureConfig) -> Float[Tensor, "h w"]:
        """How much each pixel of the fixed view counts in training, in [0, 1]."""
        weight = (self.alpha[..., 0] > config.alpha_threshold).to(self.fixed.dtype)
        return weight if self.confidence is None else weight * self.confidence

    def is_changed(self, config: MixtureConfig) -> bool:
        """Whether the fixer changed visibly what is learned from: holes that it filled do not count."""
        counts = self.alpha[..., 0] > config.alpha_threshold
        difference = (self.fixed - self.rendered).abs()[counts]
        return len(difference) > 0 and float(difference.mean(dtype=torch.float64)) >= VISIBLE


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class NovelViews:
    """All novel views of one round."""

    round_index: int
    """The round that made them, from 0."""

    views: tuple[NovelView, ...]
    """The views, in the order of the targets."""

    @classmethod
    def of(
        cls,
        round_index: int,
        rendered: Sequence[RenderedView],
        fixed: Sequence[FixedView],
        confidence: PixelConfidence | None = None,
    ) -> NovelViews:
        """Those of fixed renders, with the fixer's confidence, times that of captured views where it is asked for.

        They are in the CPU's memory: a GPU would hold 60 MB for each at two megapixels, and what training looks at goes
        there within its budget.
        """
        views = []
        for view, better in zip(rendered, fixed, strict=True):
            factors = [better.confidence, confidence.of(view.camera, better.rgb) if confidence else None]
            known = [factor.cpu() for factor in factors if factor is not None]
            alpha = view.rgb.new_ones(view.rgb.shape[:2]) if view.alpha is None else view.alpha
            views.append(
                NovelView(
                    camera=view.camera,
                    reference_name=view.references[0].name,
                    rendered=view.rgb.cpu(),
                    fixed=better.rgb.to("cpu", view.rgb.dtype),
                    alpha=alpha[..., None].cpu(),
                    verdict=better.verdict,
                    confidence=torch.stack(known).prod(dim=0) if known else None,
                )
            )
        return cls(round_index=round_index, views=tuple(views))

    @property
    def T_world_cam(self) -> Float64[np.ndarray, "n 4 4"]:
        """Their poses."""
        return np.stack([view.camera.T_world_cam for view in self.views])

    def summary(self) -> str:
        """What became of the fixes, in a sentence."""
        return verdict_summary([view.verdict for view in self.views], "novel view")

    def changed(self, config: MixtureConfig) -> NovelViews:
        """Those that the fixer changed; the others show what the splat shows already."""
        return replace(self, views=tuple(view for view in self.views if view.is_changed(config)))

    def training_views(self, config: MixtureConfig) -> list[TrainingView]:
        """The fixed views to train on, those that have enough pixels that count."""
        views = []
        for view in self.views:
            pixel_weight = view.pixel_weight(config)
            if float((pixel_weight > 0).to(pixel_weight.dtype).mean()) >= MIN_COVERAGE:
                weight = config.novel_weight
                views.append(TrainingView(camera=view.camera, rgb=view.fixed, weight=weight, pixel_weight=pixel_weight))
        return views


def training_mixture(
    captured: Sequence[View],
    novel: NovelViews | None,
    config: MixtureConfig,
    captured_position: dict[str, Any] | None = None,
) -> ViewSet | ViewMixture:
    """What a splat is trained on: captured views, and novel ones where there are any that teach something.

    Args:
        novel: The newest novel views; None before there are any, when captured views count 1.
        config: How often a step takes a novel view, and how much each kind counts.
        captured_position: Where the captured views stand in their epoch (`ViewSet.state_dict`); None: at its start.
    """
    views = novel.training_views(config) if novel else ()
    photos = ViewSet.from_views(captured, weight=config.captured_weight if views else 1.0)
    if captured_position is not None:
        photos.load_state_dict(captured_position)
    return photos.mixed_with(ViewSet(views), config.novel_prob) if views else photos
