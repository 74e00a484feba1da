"""The diffusion model's loss and its samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsefusion.vldm import schedule
from sparsefusion.vldm.unet import Denoiser

MAX_LATENT = 10.0
"""Predicted clean latents are clamped to this."""

MAX_TRAINING_TIME = 0.999
"""Training draws times between 0 and this."""

CONDITION_DROP_PROB = 0.1
"""Probability that training withholds the condition."""

P2_GAMMA, P2_K = 0.5, 1.0
"""Losses are weighted by ``(k + SNR) ** -gamma`` (Choi et al. 2022)."""

Noise = Callable[[Tensor], Tensor]
"""Draws standard normal noise of another tensor's shape."""


def noise_like(generator: torch.Generator | None = None) -> Noise:
    """Noise from a generator, or from torch's own random state."""

    def draw(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)

    return draw


def diffusion_loss(
    denoiser: Denoiser,
    clean: Float[Tensor, "b c h w"],
    cond: Float[Tensor, "b k y x"],
    times: Float[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    *,
    mask: Float[Tensor, "b _c h w"] | None = None,
    keep: Bool[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the predicted noise, weighted down where the signal is strong.

    Args:
        times: Times in [0, 1].
        noise: Standard normal noise.
        mask: Where latents are believed; multiplies both prediction and target.
        keep: Samples whose condition is kept.
    """
    log_snr = schedule.log_snr(times)
    predicted = denoiser(schedule.add_noise(clean, times, noise), log_snr, cond, keep)
    if mask is not None:
        predicted, noise = predicted * mask, noise * mask
    losses = (predicted - noise).square().flatten(1).mean(dim=1)
    return (losses * (P2_K + log_snr.exp()) ** -P2_GAMMA).mean()


@dataclass(frozen=True)
class Sample:
    """A clean latent that the diffusion model finds for a noisy one."""

    clean: Float[Tensor, "b c h w"]
    """The clean latent."""

    noisy: Float[Tensor, "b c h w"]
    """The noisy latent that the sampling started from."""

    alpha_bar: float
    """Share of the signal's variance at the start: near 1 where there was little noise."""

    noise: Float[Tensor, "b c h w"]
    """The noise that was added at the start."""


def num_plms_steps(start: float, max_steps: int) -> int:
    """Steps of a sample that starts at a time: proportional to it, and all of them from the middle of time on."""
    return min(int(2 * max_steps * start), max_steps)


def _clean(x: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    return schedule.remove_noise(x, times, noise).clamp(-MAX_LATENT, MAX_LATENT)


@torch.no_grad()
def sample_one_step(
    denoiser: Denoiser,
    latents: Float[Tensor, "b c h w"],
    cond: Float[Tensor, "b k y x"],
    start: float,
    *,
    noise: Noise | None = None,
) -> Sample:
    """Noise latents up to a time and take the network's first guess of the clean ones."""
    draw = noise or noise_like()
    times = torch.full((len(latents),), start, device=latents.device)
    added = draw(latents)
    noisy = schedule.add_noise(latents, times, added)
    log_snr = schedule.log_snr(times)
    clean = _clean(noisy, times, denoiser(noisy, log_snr, cond))
    return Sample(clean, noisy, torch.sigmoid(log_snr[0]).item(), added)


@torch.no_grad()
def sample_plms(
    denoiser: Denoiser,
    latents: Float[Tensor, "b c h w"],
    cond: Float[Tensor, "b k y x"],
    start: float,
    *,
    max_steps: int = 50,
    noise: Noise | None = None,
) -> Sample:
    """Noise latents up to a time, then denoise them in several steps.

    The noise of a step is extrapolated from the last four predictions (Adams-Bashforth, as in PLMS, Liu et al. 2022;
    the first step is an improved Euler step), but each step then draws from the ancestral posterior instead of
    moving deterministically, as the published system does.

    Args:
        start: Time to start from, in [0, 1).
        max_steps: Largest number of steps (see `num_plms_steps`); at a time too early for one step, the noisy latents
            come back.
        noise: Where noise comes from. It is asked once for the start, then four times in the first step and twice in
            every other one, of which the second and the last draw are used: the order of the published sampler.
    """
    draw = noise or noise_like()
    num_steps = num_plms_steps(start, max_steps)
    device = latents.device
    first = torch.full((len(latents),), start, device=device)
    added = draw(latents)
    noisy = schedule.add_noise(latents, first, added)
    alpha_bar = torch.sigmoid(schedule.log_snr(first[0])).item()

    def predict(x: Tensor, times: Tensor) -> Tensor:
        draw(x)
        return denoiser(x, schedule.log_snr(times), cond)

    def step(x: Tensor, predicted: Tensor, times: Tensor, next_times: Tensor) -> Tensor:
        clean = _clean(x, times, predicted)
        return schedule.posterior(clean, x, times, next_times).sample(draw(x), next_times)

    path = schedule.sampling_times(start, num_steps, device) if num_steps else first[:1]
    x, past = noisy, []
    for time, next_time in pairwise(path):
        times, next_times = time.expand(len(x)), next_time.expand(len(x))
        predicted = predict(x, times)
        if not past:
            ahead = predict(step(x, predicted, times, next_times), next_times)
            combined = (predicted + ahead) / 2
        elif len(past) == 1:
            combined = (3 * predicted - past[-1]) / 2
        elif len(past) == 2:
            combined = (23 * predicted - 16 * past[-1] + 5 * past[-2]) / 12
        else:
            combined = (55 * predicted - 59 * past[-1] + 37 * past[-2] - 9 * past[-3]) / 24
        x = step(x, combined, times, next_times)
        past = [*past[-2:], predicted]
    return Sample(x, noisy, alpha_bar, added)
