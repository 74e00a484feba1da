"""The diffusion arithmetic as pure functions: the closed-form single step and one step of DDPM sampling."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.config import BETA_END, BETA_START, NUM_TRAIN_TIMESTEPS

MIN_VARIANCE = 1e-20
"""Floor of the DDPM posterior variance, as in the `fixed_small` scheduler of the released weights."""


@cache
def alphas_cumprod() -> Float[Tensor, " t"]:
    """Return the cumulative product of (1 - beta) of the scaled-linear schedule, in float32 on the CPU."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TRAIN_TIMESTEPS, dtype=torch.float32, device="cpu") ** 2
    return torch.cumprod(1.0 - betas, dim=0)


# As numbers: reading one from a tensor would cut a compiled network in two.
_ALPHAS = tuple(alphas_cumprod().tolist())


def alpha_cumprod(timestep: int) -> float:
    """Return the signal's share of the variance at a timestep; 1 below timestep 0.

    Raises:
        ValueError: If the timestep lies beyond the schedule.
    """
    if timestep >= NUM_TRAIN_TIMESTEPS:
        raise ValueError(f"timestep must be below {NUM_TRAIN_TIMESTEPS}, got {timestep}")
    return _ALPHAS[timestep] if timestep >= 0 else 1.0


def predict_clean(z: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], timestep: int) -> Float[Tensor, "*shape"]:
    """Return the clean latent that the predicted noise implies: (z - sqrt(1 - a) * noise) / sqrt(a).

    This is the whole single step: the scheduler of the released code, asked for one step, gives exactly it.

    Args:
        z: Latent at `timestep`.
        timestep: Diffusion timestep in [0, 999].
    """
    alpha = alpha_cumprod(timestep)
    return (z - (1.0 - alpha) ** 0.5 * noise) / alpha**0.5


def ddpm_step(
    z: Float[Tensor, "*shape"],
    noise: Float[Tensor, "*shape"],
    timestep: int,
    previous_timestep: int,
    step_noise: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    """Go from one timestep to an earlier one by ancestral sampling (DDPM, equations 6 and 7).

    Args:
        z: Latent at `timestep`.
        timestep: Where `z` is.
        previous_timestep: Where the result is; negative means the clean latent.
        step_noise: Standard normal draw; None leaves the posterior's mean.
    """
    alpha, alpha_previous = alpha_cumprod(timestep), alpha_cumprod(previous_timestep)
    beta = 1.0 - alpha / alpha_previous
    clean = predict_clean(z, noise, timestep)
    clean_weight = alpha_previous**0.5 * beta / (1.0 - alpha)
    z_weight = (alpha / alpha_previous) ** 0.5 * (1.0 - alpha_previous) / (1.0 - alpha)
    mean = clean_weight * clean + z_weight * z
    if step_noise is None or timestep == 0:
        return mean
    variance = max((1.0 - alpha_previous) / (1.0 - alpha) * beta, MIN_VARIANCE)
    return mean + variance**0.5 * step_noise
