"""How close an image is to the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

import image_metrics
from sparsefusion.losses import PerceptualDistance

MIN_SSIM_SIZE = 16
"""Smaller images have no SSIM."""


@dataclass(frozen=True)
class Scores:
    """How close an image is to the truth, over the whole image."""

    psnr: float
    """Peak signal-to-noise ratio, in dB."""

    ssim: float | None
    """Structural similarity; None for images that are too small."""

    flip: float
    """FLIP (Andersson et al. 2020): what is noticed when one flips between both images, from 0 for nothing to 1."""

    lpips: float | None
    """LPIPS; None where its weights are not available."""


@torch.no_grad()
def score(
    image: Float[Tensor, "1 3 h w"], truth: Float[Tensor, "1 3 h w"], perceptual: PerceptualDistance | None = None
) -> Scores:
    """Compare an image with the truth, both in [0, 1]."""
    image, truth = (values.detach().float().cpu().clamp(0, 1) for values in (image, truth))
    pair = [values[0].permute(1, 2, 0) for values in (image, truth)]
    return Scores(
        psnr=image_metrics.psnr(*pair),
        ssim=image_metrics.ssim(*pair) if min(image.shape[-2:]) >= MIN_SSIM_SIZE else None,
        flip=image_metrics.flip(*pair),
        lpips=None if perceptual is None else float(perceptual(2 * image - 1, 2 * truth - 1)),
    )


def mean_scores(values: Iterable[Scores]) -> dict[str, float | None] | None:
    """Means over images; None where there are none."""
    rows = [asdict(one) for one in values]
    if not rows:
        return None

    def mean(name: str) -> float | None:
        known = [row[name] for row in rows if row[name] is not None]
        return sum(known) / len(known) if known else None

    return {name: mean(name) for name in rows[0]}
