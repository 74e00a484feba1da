"""How noise is taken away: the schedulers of inference, with the released settings."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from diffsplat.config import SchedulerName
from diffsplat.errors import InputError
from diffsplat.stock import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

SD15_NOISE_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
"""Noise levels that Stable Diffusion 1.5 was trained with."""

PIXART_NOISE_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
}
"""Noise levels that PixArt-Sigma was trained with."""

LEVELS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "steps_offset",
    "rescale_betas_zero_snr",
)  # fmt: skip
"""What both kinds of schedulers read of a schedule."""

FLOW_SHIFT = 3.0
"""How much the flow of Stable Diffusion 3 dwells at high noise."""


def make_scheduler(
    name: SchedulerName,
    noise_schedule: dict[str, Any],
    *,
    prediction_type: str = "epsilon",
    flow_shift: float = FLOW_SHIFT,
) -> Any:
    """A diffusers scheduler.

    The released code asks for a rescaling of the noise levels to no signal at all, too late for it to have an effect;
    its weights need the levels without it, which are these.

    Args:
        name: Which one.
        noise_schedule: Noise levels, as in the base model's scheduler_config.json; not used by `flow`.
        prediction_type: What the network predicts: "epsilon", or "v_prediction" with an image.
        flow_shift: For `flow`.
    """
    schedule = {key: value for key, value in noise_schedule.items() if not key.startswith("_")}
    if name == "flow":
        return FlowMatchEulerDiscreteScheduler(shift=flow_shift)
    if name == "ddim":
        kept = {key: schedule[key] for key in (*LEVELS, "clip_sample", "set_alpha_to_one") if key in schedule}
        return DDIMScheduler(
            **{"clip_sample": False, **kept}, timestep_spacing="trailing", prediction_type=prediction_type
        )
    if name in ("sde-dpmsolver++", "dpmsolver++"):
        kept = {key: schedule[key] for key in LEVELS if key in schedule}
        return DPMSolverMultistepScheduler(
            **kept,
            algorithm_type=name,
            solver_order=2,
            timestep_spacing="trailing",
            prediction_type=prediction_type,
        )
    raise InputError(f"{name!r} is no scheduler: take sde-dpmsolver++, dpmsolver++, ddim or flow")


def set_steps(scheduler: Any, num_steps: int, device: torch.device | str = "cpu") -> None:
    """Choose a scheduler's timesteps."""
    with warnings.catch_warnings():
        # diffusers copies a tensor in a way that numpy 2 warns about.
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(num_steps, device=device)
