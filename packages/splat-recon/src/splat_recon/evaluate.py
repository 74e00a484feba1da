"""Quality of renders over a set of photos, in the form of `metrics.json`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import image_metrics as metrics
from image_metrics import LpipsMetric
from image_metrics.similarity import Border
from splat_recon.scene.scene import View
from splat_recon.views.view_set import rgb_from_bytes
from splat_render.cameras import Camera
from splat_render.upload import uploaded

BORDER: Border = "inside"
"""Of SSIM: the windows that training sees, as all figures in docs/benchmarks.md were measured."""


@dataclass(frozen=True, kw_only=True)
class ViewScore:
    """Scores of one render."""

    psnr: float
    """In dB."""

    ssim: float
    """In [-1, 1]."""

    lpips: float | None
    """Perceptual distance; None where it is not available."""

    flip: float | None = None
    """What is noticed when flipping between render and photo, in [0, 1], lower is better; None where not measured."""

    def to_dict(self) -> dict[str, float | None]:
        """As in `metrics.json`."""
        return {"psnr": self.psnr, "ssim": self.ssim, "lpips": self.lpips, "flip": self.flip}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a set of renders: each view's, and their means."""

    psnr: float
    """Mean over the views, in dB."""

    ssim: float
    """Mean over the views."""

    lpips: float | None
    """Mean over the views; None where it is not available."""

    per_view: dict[str, ViewScore]
    """By name of the view."""

    flip: float | None = None
    """Mean over the views; None where not measured."""

    def to_dict(self, *, step: int | None, split: str, num_gaussians: int) -> dict[str, Any]:
        """The content of `metrics.json`; `step` is None for splats that this package did not train."""
        return {
            "step": step,
            "split": split,
            "num_gaussians": num_gaussians,
            "psnr": self.psnr,
            "ssim": self.ssim,
            "lpips": self.lpips,
            "flip": self.flip,
            "per_view": {name: score.to_dict() for name, score in self.per_view.items()},
        }


Render = Callable[[Camera], Float[Tensor, "h w 3"]]
"""What can be evaluated: anything that turns a camera into RGB in [0, 1]."""


def evaluate(
    render: Render,
    views: Sequence[View],
    *,
    lpips: LpipsMetric | None = None,
    on_view: Callable[[View, Float[Tensor, "h w 3"]], None] | None = None,
) -> Evaluation:
    """Render every view's camera and compare with its photo, inside its mask; LPIPS sees the whole image.

    Args:
        render: From a camera to RGB in [0, 1]; values outside are clamped.
        views: At least one.
        lpips: From `image_metrics.make_lpips`.
        on_view: Receives each view and its clamped render, for example to write it out.

    Raises:
        ValueError: There is no view.
    """
    if not views:
        raise ValueError("evaluate needs at least one view, got none; choose another split")
    scores: dict[str, ViewScore] = {}
    for view in views:
        rendered = render(view.camera).detach().clamp(0, 1)
        bytes_cpu, mask_cpu = torch.tensor(view.rgb_u8), None if view.mask is None else torch.tensor(view.mask)
        photo = rgb_from_bytes(uploaded(bytes_cpu, rendered.device))
        mask = None if mask_cpu is None else uploaded(mask_cpu, rendered.device)
        # FLIP is compiled for CPUs only; the others are quick where the render is.
        rendered_cpu = rendered.cpu()
        scores[view.name] = ViewScore(
            psnr=metrics.psnr(rendered, photo, mask),
            ssim=metrics.ssim(rendered, photo, mask, border=BORDER),
            lpips=None if lpips is None else lpips(rendered, photo),
            flip=metrics.flip(rendered_cpu, rgb_from_bytes(bytes_cpu), mask_cpu),
        )
        if on_view is not None:
            on_view(view, rendered_cpu)
    distances = [score.lpips for score in scores.values() if score.lpips is not None]
    flips = [score.flip for score in scores.values() if score.flip is not None]
    return Evaluation(
        psnr=sum(score.psnr for score in scores.values()) / len(scores),
        ssim=sum(score.ssim for score in scores.values()) / len(scores),
        lpips=sum(distances) / len(distances) if len(distances) == len(scores) else None,
        per_view=scores,
        flip=sum(flips) / len(flips),
    )
