"""Continuous-time noise schedule: cosine (Nichol and Dhariwal 2021), in log-SNR form (Kingma et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

OFFSET = 0.008
"""Keeps the noise at time 0 from vanishing too quickly."""

MIN_ODDS = 1e-5
"""Floor under the odds of noise, so that the logarithm stays finite at time 0."""

MIN_ALPHA = 1e-8
"""Floor under the signal's scale when the clean latent is computed from the noise."""


def log_snr(times: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Logarithm of the signal-to-noise ratio at times in [0, 1]."""
    odds = torch.cos((times + OFFSET) / (1 + OFFSET) * math.pi / 2) ** -2 - 1
    return -torch.log(odds.clamp(min=MIN_ODDS))


def alpha_sigma(log_snr: Float[Tensor, "*b"]) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Scales of signal and noise; their squares add up to 1."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


def _as(x: Tensor, values: Tensor) -> Tensor:
    """Values with as many trailing axes of length one as ``x`` has more axes."""
    return values.reshape(*values.shape, *([1] * (x.ndim - values.ndim)))


def add_noise(
    clean: Float[Tensor, "b c h w"], times: Float[Tensor, " b"], noise: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """What a clean latent is at a time, with a given noise."""
    alpha, sigma = alpha_sigma(_as(clean, log_snr(times)))
    return alpha * clean + sigma * noise


def remove_noise(
    x: Float[Tensor, "b c h w"], times: Float[Tensor, " b"], noise: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """The clean latent that noise predicts."""
    alpha, sigma = alpha_sigma(_as(x, log_snr(times)))
    return (x - sigma * noise) / alpha.clamp(min=MIN_ALPHA)


@dataclass(frozen=True)
class Posterior:
    """Distribution of a latent at an earlier time, given the one at a later time and the clean one."""

    mean: Float[Tensor, "b c h w"]
    variance: Float[Tensor, "b 1 1 1"]
    log_variance: Float[Tensor, "b 1 1 1"]
    """The variance's logarithm, floored at 1e-20 before."""

    def sample(self, noise: Float[Tensor, "b c h w"], next_times: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """One draw with given noise; the mean where the earlier time is 0."""
        draws = _as(noise, (next_times != 0).to(noise.dtype))
        return self.mean + draws * (0.5 * self.log_variance).exp() * noise


def posterior(
    clean: Float[Tensor, "b c h w"],
    x: Float[Tensor, "b c h w"],
    times: Float[Tensor, " b"],
    next_times: Float[Tensor, " b"],
) -> Posterior:
    """The ancestral posterior of diffusion, from ``times`` to the earlier ``next_times``."""
    later, earlier = (_as(x, log_snr(value)) for value in (times, next_times))
    alpha, _ = alpha_sigma(later)
    alpha_next, sigma_next = alpha_sigma(earlier)
    change = -torch.expm1(later - earlier)
    mean = alpha_next * (x * (1 - change) / alpha + change * clean)
    variance = sigma_next**2 * change
    return Posterior(mean, variance, torch.log(variance.clamp(min=1e-20)))


def sampling_times(start: float, num_steps: int, device: torch.device | str = "cpu") -> Float[Tensor, " n"]:
    """``num_steps + 1`` times from ``start`` down to 0."""
    return torch.linspace(start, 0.0, num_steps + 1, device=device)
