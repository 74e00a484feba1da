"""Pixel losses between network output and clean image, both in [-1, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LOG_MSE_FLOOR = 1e-5
"""Added to the MSE inside the logarithm: 50 dB in images of range 2, beyond which there is nothing to learn."""


def l2_loss(x_pred: Float[Tensor, "n 3 h w"], x_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
    """Mean squared error over everything."""
    return torch.nn.functional.mse_loss(x_pred, x_clean)


def l1_loss(x_pred: Float[Tensor, "n 3 h w"], x_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
    """Mean absolute error over everything."""
    return torch.nn.functional.l1_loss(x_pred, x_clean)


def log_mse_loss(x_pred: Float[Tensor, "n 3 h w"], x_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
    """Mean over images of the natural logarithm of each image's MSE: -0.23 for each dB of PSNR."""
    mse_per_image = (x_pred - x_clean).square().mean(dim=(1, 2, 3))
    return torch.log(mse_per_image + LOG_MSE_FLOOR).mean()
