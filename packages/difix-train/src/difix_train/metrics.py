"""Image quality measures in [0, 1] RGB: PSNR and SSIM from torchmetrics, as other trainers report them, and FLIP.

What measures is imported when something is measured: that takes seconds.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

MAX_PSNR = 100.0
"""Of equal images, so that means stay finite."""


def psnr(rgb: Float[Tensor, "n 3 h w"], rgb_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each image in dB, at most 100."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = peak_signal_noise_ratio(rgb, rgb_clean, data_range=1.0, dim=(1, 2, 3), reduction="none")
    return values.clamp(max=MAX_PSNR)


def ssim(rgb: Float[Tensor, "n 3 h w"], rgb_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of each image: Gaussian window of 11 pixels, images continued by reflection.

    Sides must be longer than 5 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    # Variances are small differences of large means: the TF32 that convolutions take on a GPU would drown them.
    values = structural_similarity_index_measure(rgb.double(), rgb_clean.double(), data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def flip(rgb: Float[Tensor, "n 3 h w"], rgb_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """FLIP of each image, in [0, 1], 0 for equal ones: what is noticed when one flips between both.

    Andersson et al. (HPG 2020), at 67 pixels per degree: differences in color, edges and points, as an eye at that
    distance tells them apart.
    """
    import flip_evaluator

    clean, test = (
        [image.contiguous().numpy() for image in each.detach().cpu().float().clamp(0, 1).permute(0, 2, 3, 1)]
        for each in (rgb_clean, rgb)
    )
    found = [flip_evaluator.evaluate(*pair, "LDR", applyMagma=False) for pair in zip(clean, test, strict=True)]
    return torch.tensor([float(mean) for _, mean, _ in found])
