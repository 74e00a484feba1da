"""Leave some Gaussians out of a training render, so that no few of them carry what a photo shows."""

import dataclasses

import torch

from splat_render.gaussians import Gaussians

MIN_OPACITY, MAX_OPACITY = 1e-6, 1 - 1e-6
"""Opacities that a logit can hold; the rasterizers skip what is less than 1/255."""


def dropped(gaussians: Gaussians, probability: float, generator: torch.Generator) -> Gaussians:
    """The same Gaussians, a random part of them transparent and the others as much more opaque.

    Few photos of a scene can be explained by Gaussians close to their cameras, which nobody else sees; such ones are
    transparent often enough that others must learn the same photo. As in DropGaussian (arXiv:2504.00773).

    Args:
        gaussians: What is to be rendered; gradients flow to those that stay.
        probability: With which each is left out, in [0, 1).
        generator: On the device of the Gaussians; draws one number for each.
    """
    if probability == 0:
        return gaussians
    stays = torch.rand(len(gaussians), generator=generator, device=gaussians.device) >= probability
    factors = stays.float() / (1 - probability)
    opacities = (gaussians.opacities * factors).clamp(MIN_OPACITY, MAX_OPACITY)
    return dataclasses.replace(gaussians, logit_opacities=torch.logit(opacities))
