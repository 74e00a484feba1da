"""The Gram-matrix loss: differences of VGG16 feature correlations, which carry style and sharpness."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from difix_train.losses.vgg import Features, VggFeatures

LAYER_WEIGHTS = {"relu1_2": 1 / 2.6, "relu2_2": 1 / 4.8, "relu3_3": 1 / 3.7, "relu4_3": 1 / 5.6, "relu5_3": 10 / 1.5}
"""Weights of the layers, those of the released code."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_normalized(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Images in [-1, 1] as VGG16 expects them: ImageNet's mean and standard deviation removed."""
    mean, std = _imagenet_statistics(x.device, x.dtype)
    return (x * 0.5 + 0.5 - mean) / std


@functools.lru_cache(maxsize=8)
def _imagenet_statistics(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "s=2 c=3 h=1 w=1"]:
    # To make them anew would wait for a GPU at each step.
    with torch.inference_mode(mode=False):
        return torch.tensor((IMAGENET_MEAN, IMAGENET_STD), device=device, dtype=dtype)[..., None, None]


def gram_matrices(features: Float[Tensor, "n c h w"], *, across_batch: bool) -> Float[Tensor, "g k k"]:
    """Un-normalized channel correlations: one matrix for each image, or one over all images and channels at once."""
    rows = features.flatten(0, 1)[None].flatten(2) if across_batch else features.flatten(2)
    return rows @ rows.transpose(1, 2)


def gram_loss(features_pred: Features, features_clean: Features, *, across_batch: bool = False) -> Float[Tensor, ""]:
    """Weighted sum over layers of the mean squared difference of Gram matrices, divided by C * H * W of the layer.

    Args:
        features_pred: VGG16's features of the output.
        features_clean: VGG16's features of the clean image.
        across_batch: One matrix over the whole batch, as the released code has it.
    """
    total = torch.zeros((), device=next(iter(features_pred.values())).device)
    for name, weight in LAYER_WEIGHTS.items():
        pred, clean = features_pred[name], features_clean[name]
        gram_pred = gram_matrices(pred, across_batch=across_batch)
        gram_clean = gram_matrices(clean, across_batch=across_batch)
        total = total + weight * (gram_clean - gram_pred).square().mean() / pred[0].numel()
    return total


def random_window(height: int, width: int, crop: int, generator: torch.Generator) -> tuple[slice, slice]:
    """A square window of side ``crop`` at a random position; the whole side where an image is smaller."""
    slices = []
    for length in (height, width):
        size = min(crop, length)
        start = int(torch.randint(0, length - size + 1, (), generator=generator))
        slices.append(slice(start, start + size))
    return slices[0], slices[1]


def image_gram_loss(
    vgg: VggFeatures,
    x_pred: Float[Tensor, "n 3 h w"],
    x_clean: Float[Tensor, "n 3 h w"],
    window: tuple[slice, slice] = (slice(None), slice(None)),
    *,
    across_batch: bool = False,
) -> Float[Tensor, ""]:
    """:func:`gram_loss` of images in [-1, 1], seen through one ``window`` (rows, columns) for all of them."""
    rows, columns = window
    features_pred = vgg(imagenet_normalized(x_pred[..., rows, columns]))
    with torch.no_grad():
        features_clean = vgg(imagenet_normalized(x_clean[..., rows, columns]))
    return gram_loss(features_pred, features_clean, across_batch=across_batch)
