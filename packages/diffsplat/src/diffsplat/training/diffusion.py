"""One training step of a denoiser: what is drawn, what the network is fed, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffsplat.denoiser import MultiViewDenoiser, TextCondition, control_views
from diffsplat.sampling import ControlCondition, model_input
from diffsplat.training.config import Prediction


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseLevels:
    """Noise levels by timestep, of a diffusion or of a flow."""

    signal: Float[Tensor, " t"]
    """Weight of the clean latents."""
    noise: Float[Tensor, " t"]
    """Weight of the noise."""

    @classmethod
    def of_diffusion(cls, scheduler: Any) -> NoiseLevels:
        """Those of a diffusers scheduler with cumulated alphas."""
        alphas = scheduler.alphas_cumprod
        return cls(signal=alphas.sqrt(), noise=(1 - alphas).sqrt())

    @property
    def snr(self) -> Float[Tensor, " t"]:
        """Ratio of signal to noise power."""
        return (self.signal / self.noise).square()


@dataclass(frozen=True, kw_only=True, eq=False)
class DroppedConditions:
    """Which objects of a batch go without their conditions."""

    text: Bool[Tensor, " b"]
    """Without the prompt."""
    image: Bool[Tensor, " b"]
    """Without the image."""


def dropped_conditions(uniform: Float[Tensor, " b"], prob: float) -> DroppedConditions:
    """One number per object decides: a `prob` each loses the prompt only, both, and the image only.

    Args:
        uniform: In [0, 1), one per object.
        prob: In [0, 1/3].
    """
    return DroppedConditions(text=uniform < 2 * prob, image=(uniform >= prob) & (uniform < 3 * prob))


def without_text(text: TextCondition, negative: TextCondition, dropped: Bool[Tensor, " b"]) -> TextCondition:
    """The conditions with those of an empty prompt in the place of the dropped ones."""

    def chosen(own: Tensor | None, other: Tensor | None) -> Tensor | None:
        if own is None or other is None:
            return None
        where = dropped.reshape(-1, *([1] * (own.ndim - 1)))
        return torch.where(where, other.expand_as(own), own)

    return TextCondition(
        embeds=chosen(text.embeds, negative.embeds),  # type: ignore[arg-type]
        mask=chosen(text.mask, negative.mask),
        pooled=chosen(text.pooled, negative.pooled),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusionStep:
    """What a step computes on the way to its loss."""

    noisy: Float[Tensor, "b v l h w"]
    """Noisy latents."""
    network_input: Float[Tensor, "bv c h w"]
    """What the network is fed."""
    predicted: Float[Tensor, "b v l h w"]
    """What it predicts for the generated views."""
    target: Float[Tensor, "b v l h w"]
    """What it should predict."""
    clean: Float[Tensor, "b v l h w"]
    """The clean latents that the prediction amounts to."""
    loss: Float[Tensor, " b"]
    """Mean squared error, per object."""


def diffusion_step(
    denoiser: MultiViewDenoiser,
    latents: Float[Tensor, "b v l h w"],
    noise: Float[Tensor, "b v l h w"],
    *,
    signal_weight: Float[Tensor, " b"],
    noise_weight: Float[Tensor, " b"],
    timesteps: Tensor,
    prediction: Prediction,
    rays: Float[Tensor, "b u c=6 y x"],
    text: TextCondition,
    image_latents: Float[Tensor, "b l h w"] | None = None,
    control: ControlCondition | None = None,
) -> DiffusionStep:
    """Noise the latents, let the network predict, and compare.

    Args:
        denoiser: The network.
        latents: Clean, as diffusion sees them (scaled).
        noise: Standard normal.
        signal_weight: What clean latents are weighted with; one per object.
        noise_weight: What noise is weighted with; one per object.
        timesteps: What the network is told; one per object.
        prediction: What it predicts.
        rays: Rays of the views, with an image perhaps of that first.
        text: One prompt per object, dropped ones replaced.
        image_latents: Clean latents of an image per object, dropped ones zero; None for a network without an image.
        control: A ControlNet and its maps.
    """
    signal, sigma = (value.reshape(-1, 1, 1, 1, 1).to(latents) for value in (signal_weight, noise_weight))
    noisy = signal * latents + sigma * noise
    fed = model_input(noisy, rays, image_latents)
    num_in = latents.shape[1] + int(image_latents is not None)
    residuals = None
    if control is not None:
        maps = control_views(control.maps.to(fed), num_in)
        residuals = control.network(fed, timesteps, text, maps, num_views=num_in, scale=control.scale)
    found = denoiser(fed, timesteps, text, num_views=num_in, residuals=residuals)
    predicted = found.unflatten(0, (-1, num_in))[:, num_in - latents.shape[1] :]
    if prediction == "epsilon":
        target = noise
        clean = (noisy - sigma * predicted) / signal
    elif prediction == "v_prediction":
        target = signal * noise - sigma * latents
        clean = signal * noisy - sigma * predicted
    else:
        target = noise - latents
        clean = noisy - sigma * predicted
    loss = (predicted.float() - target.float()).square().mean(dim=(1, 2, 3, 4))
    return DiffusionStep(noisy=noisy, network_input=fed, predicted=predicted, target=target, clean=clean, loss=loss)


def flow_levels(
    num: int, generator: torch.Generator | None = None, *, mean: float = 0.0, std: float = 1.0
) -> Float[Tensor, " n"]:
    """Shares of noise for flow matching, dense in the middle: sigmoids of normal numbers."""
    return torch.sigmoid(mean + std * torch.randn(num, generator=generator))
