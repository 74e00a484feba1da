"""Image quality measures in [0, 1] RGB."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
MIN_MSE = 1e-10


def psnr(rgb: Float[Tensor, "n 3 h w"], rgb_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each image in dB, at most 100."""
    mse = (rgb - rgb_clean).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(mse.clamp_min(MIN_MSE))


def ssim(rgb: Float[Tensor, "n 3 h w"], rgb_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Structural similarity of each image: Gaussian window of 11 pixels, no padding, mean over channels.

    Images smaller than the window get a window that fits.
    """
    # Variances are small differences of large means: the TF32 that convolutions take on a GPU would drown them.
    rgb, rgb_clean = rgb.double(), rgb_clean.double()
    size = min(SSIM_WINDOW, rgb.shape[-2], rgb.shape[-1])
    positions = torch.arange(size, dtype=rgb.dtype, device=rgb.device) - (size - 1) / 2
    line = torch.exp(-positions.square() / (2 * SSIM_SIGMA**2))
    line = line / line.sum()

    def blurred(x: Tensor) -> Tensor:
        planes = x.flatten(0, 1)[:, None]
        planes = torch.nn.functional.conv2d(planes, line[None, None, :, None])
        return torch.nn.functional.conv2d(planes, line[None, None, None, :])[:, 0].unflatten(0, x.shape[:2])

    mean_a, mean_b = blurred(rgb), blurred(rgb_clean)
    var_a = blurred(rgb.square()) - mean_a.square()
    var_b = blurred(rgb_clean.square()) - mean_b.square()
    covariance = blurred(rgb * rgb_clean) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2)
    )
    return similarity.mean(dim=(1, 2, 3))
