"""PSNR, SSIM and FLIP of one image, over all of its pixels or those of a mask."""

import math
from typing import Literal

import flip_evaluator
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

Border = Literal["reflect", "inside"]
"""What SSIM does where a window reaches beyond the image."""

MAX_PSNR = 100.0
"""Of two equal images, in dB; JSON has no infinity, and means stay finite."""

WINDOW = 11
"""Pixels across SSIM's window."""

SIGMA = 1.5
"""Standard deviation of the window in pixels."""

C1 = 0.01**2
"""Stabilizer of SSIM's luminance term for values in [0, 1]."""

C2 = 0.03**2
"""Stabilizer of SSIM's contrast term for values in [0, 1]."""


@torch.no_grad()
def psnr(
    image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB for values in [0, 1], over the pixels of the mask; at most `MAX_PSNR`.

    The image is clamped to [0, 1].
    """
    squared = (image.clamp(0, 1) - truth).double() ** 2
    error = float((squared if mask is None else squared[mask]).mean())
    return min(MAX_PSNR, -10 * math.log10(error)) if error > 0 else MAX_PSNR


@torch.no_grad()
def ssim(
    image: Float[Tensor, "h w 3"],
    truth: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w"] | None = None,
    *,
    border: Border = "reflect",
) -> float:
    """Mean structural similarity (Wang et al. 2004) over the windows whose center is in the mask.

    The window is Gaussian, 11 pixels wide with standard deviation 1.5. The image is clamped to [0, 1].

    Args:
        truth: What it should be, in [0, 1].
        mask: Pixels that count; None for all.
        border: `reflect` continues both images by reflection, as torchmetrics does, and takes sides from 6 pixels on;
            `inside` averages the windows that lie inside the images, as trainings minimize it, and takes 11.
    """
    # Variances are small differences of large means, so they are computed in float64.
    pair = [values.double() for values in (image.clamp(0, 1), truth)]
    reach = WINDOW // 2
    if border == "reflect":
        pair = [pad(each.permute(2, 0, 1), [reach] * 4, mode="reflect").permute(1, 2, 0) for each in pair]
    elif mask is not None:
        mask = mask[reach:-reach, reach:-reach]
    found = ssim_map(*pair)
    return float((found if mask is None else found[mask]).mean())


def ssim_map(image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"]) -> Float[Tensor, "h_valid w_valid 3"]:
    """SSIM per window that lies inside the image: ten pixels smaller than the images. Differentiable, on any device."""
    window = _window(image.device, image.dtype)
    a, b = image.permute(2, 0, 1), truth.permute(2, 0, 1)
    stacked = torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1)[None]
    # One group per plane: on a GPU this stays in float32, where other convolutions round to TF32 and drown variances.
    windows = window.expand(stacked.shape[1], 1, -1)
    filtered = conv2d(stacked, windows[..., None], groups=len(windows))
    filtered = conv2d(filtered, windows[..., None, :], groups=len(windows))
    mu_a, mu_b, e_aa, e_bb, e_ab = filtered[0].unflatten(0, (5, 3))
    luminance = (2 * mu_a * mu_b + C1) / (mu_a**2 + mu_b**2 + C1)
    variances = e_aa - mu_a**2 + e_bb - mu_b**2
    contrast = (2 * (e_ab - mu_a * mu_b) + C2) / (variances + C2)
    return (luminance * contrast).permute(1, 2, 0)


def _window(device: torch.device, dtype: torch.dtype) -> Float[Tensor, " taps"]:
    """The one-dimensional window, summing to one, made where it is needed."""
    offsets = torch.arange(WINDOW, dtype=torch.float64, device=device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return (weights / weights.sum()).to(dtype)


@torch.no_grad()
def flip(
    image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Mean FLIP error in [0, 1] over the pixels of the mask; 0 for equal images.

    FLIP (Andersson et al., HPG 2020) predicts what is noticed when one flips between two images: differences in color,
    edges and points, filtered by the contrast sensitivity of the eye at 67 pixels per degree. It needs no weights.
    """
    reference, test = (values.detach().cpu().float().clamp(0, 1).contiguous().numpy() for values in (truth, image))
    error_map, mean, _ = flip_evaluator.evaluate(reference, test, "LDR", applyMagma=False)
    return float(mean if mask is None else error_map[..., 0][mask.cpu().numpy()].mean())
