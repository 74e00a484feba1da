"""What a network predicts for coarse images, and by how much that is closer to the photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model import DifixNetwork
from difix_model.config import RENDERED_VIEW
from difix_model.identity import COLORS, CORRECTIONS, DETAIL
from embedded_weights.coarse_pairs import DETAIL_PLANE, RGB, CoarsePairs

# They follow one another. A slice asks nothing of a GPU, where a list of indices is brought over at each step.
_COLORS, _CORRECTIONS = (slice(numbers[0], numbers[-1] + 1) for numbers in (COLORS, CORRECTIONS))

TINY = 1e-8
"""Keeps the logarithm of a measured error finite."""

References = Literal["right", "wrong", "none"]
"""A pair's own reference, that of a pair half the set away, or none."""


def predict(
    network: DifixNetwork, views: Float[Tensor, "b v c=4 h w"], *, text_embedding: Float[Tensor, "t d"]
) -> Float[Tensor, "b c2=3 h w"]:
    """Corrected coarse renders: RGB, about in [0, 1], not clamped.

    Args:
        network: Initialized at the identity.
        views: Planes as in `CoarsePairs`; view 0 is the render, the others are references.
        text_embedding: Embedding of the prompt.
    """
    z = views.new_zeros(*views.shape[:2], network.config.vae.latent_channels, *views.shape[-2:])
    z[:, :, _COLORS] = 2 * views[:, :, RGB] - 1
    z[:, :, DETAIL] = views[:, :, DETAIL_PLANE]
    clean = network.denoise_latents(z, text_embedding=text_embedding)
    return views[:, RENDERED_VIEW, RGB] + clean[:, RENDERED_VIEW, _CORRECTIONS] / 2


@torch.no_grad()
def psnr_gain(
    network: DifixNetwork,
    pairs: CoarsePairs,
    *,
    text_embedding: Float[Tensor, "t d"],
    references: References = "right",
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """By how many dB each whole image comes closer to its photo, as far as coarse images show.

    Args:
        network: Initialized at the identity; anywhere.
        pairs: Held out.
        text_embedding: Embedding of the prompt.
        references: What the network is shown.
        batch_size: How many at a time.
    """
    used = pairs.reference.roll(len(pairs) // 2, dims=0) if references == "wrong" else pairs.reference
    errors, device = [], next(network.parameters()).device
    text_embedding = text_embedding.to(device)
    for start in range(0, len(pairs), batch_size):
        part = slice(start, start + batch_size)
        views = [pairs.rendered[part]] if references == "none" else [pairs.rendered[part], used[part]]
        fixed = predict(network, torch.stack(views, dim=1).to(device), text_embedding=text_embedding).clamp(0, 1)
        errors.append((fixed.to(pairs.photo.device) - pairs.photo[part, RGB]).square().mean(dim=(1, 2, 3)))
    before = (pairs.rendered - pairs.photo)[:, RGB].square().mean(dim=(1, 2, 3))
    irreducible = pairs.irreducible_mse + TINY
    return -10 * torch.log10((torch.cat(errors) + irreducible) / (before + irreducible))


def mean_gains(
    network: DifixNetwork,
    text_embedding: Float[Tensor, "t d"],
    generated: Sequence[CoarsePairs],
    captured: Sequence[CoarsePairs] = (),
) -> dict[str, float]:
    """Mean gains in dB with the right, a wrong and no reference, and the fraction of images that come out worse.

    Args:
        network: Initialized at the identity; anywhere.
        text_embedding: Embedding of the prompt.
        generated: Held-out pairs of generated scenes.
        captured: The same of captured scenes; may be empty.
    """

    def gains(pairs: Sequence[CoarsePairs], references: References) -> Tensor:
        return torch.cat(
            [psnr_gain(network, one, text_embedding=text_embedding, references=references) for one in pairs]
        )

    kinds: tuple[References, ...] = ("right", "wrong", "none")
    found = {kind: gains(generated, kind) for kind in kinds}
    means = {kind: round(float(gain.mean()), 3) for kind, gain in found.items()}
    means["harmed"] = round(float((found["right"] < 0).float().mean()), 3)
    if captured:
        gain = gains(captured, "right")
        means["captured"] = round(float(gain.mean()), 3)
        means["captured_harmed"] = round(float((gain < 0).float().mean()), 3)
        means["captured_worst"] = round(float(gain.min()), 2)
    return means
