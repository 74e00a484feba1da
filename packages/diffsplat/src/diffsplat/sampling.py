"""From noise to latents: classifier-free guidance over the views of each object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffsplat.denoiser import MultiViewControlNet, MultiViewDenoiser, TextCondition, control_views, resized_rays
from diffsplat.schedulers import set_steps


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlCondition:
    """A ControlNet and what it is given."""

    network: MultiViewControlNet
    maps: Float[Tensor, "b 3 y x"]
    """The map of view 0 of each object, in [0, 1]."""
    scale: float = 1.0
    """Weight of what it adds."""


def guidance_per_view(guidance: float, num_views: int, *, triangle: bool, smallest: float = 1.0) -> Float[Tensor, " v"]:
    """The guidance of each view: the same for all, or rising from the first view to the one opposite and falling again.

    Args:
        guidance: The largest.
        num_views: Views of an object, without a conditioning one.
        triangle: Whether it rises and falls.
        smallest: That of view 0 in a triangle.
    """
    if not triangle:
        return torch.full((num_views,), float(guidance))
    places = torch.arange(num_views, dtype=torch.float32)
    fraction = 1 - (2 * places / num_views - 1).abs()
    return smallest + (guidance - smallest) * fraction


def model_input(
    latents: Float[Tensor, "b v l h w"],
    rays: Float[Tensor, "b u c=6 y x"],
    image_latents: Float[Tensor, "b l h w"] | None,
) -> Float[Tensor, "bv c h w"]:
    """What the denoiser is fed.

    Args:
        latents: Noisy latents of the views.
        rays: Their rays, of any size. With an image there may be one view more, whose rays come first: the image's.
        image_latents: Clean latents of the image of each object; it becomes a further first view, with mask 0 and,
            unless rays of its own are given, the rays of view 0. None for a network without an image.
    """
    height, width = latents.shape[-2:]
    num_views = latents.shape[1]
    if rays.shape[-2:] != (height, width):
        rays = resized_rays(rays.flatten(0, 1), height, width).unflatten(0, rays.shape[:2])
    if image_latents is None:
        return torch.cat([latents, rays.to(latents)], dim=2).flatten(0, 1)
    latents = torch.cat([image_latents[:, None], latents], dim=1)
    if rays.shape[1] == num_views:
        rays = torch.cat([rays[:, :1], rays], dim=1)
    rays = rays.to(latents)
    mask = torch.ones_like(latents[:, :, :1])
    mask[:, 0] = 0
    return torch.cat([latents, rays, mask], dim=2).flatten(0, 1)


@torch.no_grad()
def denoised(
    denoiser: MultiViewDenoiser,
    scheduler: Any,
    latents: Float[Tensor, "b v l h w"],
    *,
    num_steps: int,
    rays: Float[Tensor, "b u c=6 y x"],
    text: TextCondition,
    negative: TextCondition | None = None,
    guidance: Float[Tensor, " v"] | None = None,
    image_latents: Float[Tensor, "b l h w"] | None = None,
    control: ControlCondition | None = None,
    eta: float = 1.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Float[Tensor, "b v l h w"]:
    """Take the noise away.

    Args:
        denoiser: The network.
        scheduler: Of `make_scheduler`; its state is replaced.
        latents: Noise to begin with.
        num_steps: Steps of the scheduler.
        rays: Rays of the views.
        text: What to make, one prompt per object.
        negative: What to turn away from; needed with a guidance other than 1.
        guidance: Weight of the difference between the two, per view; None is 1. The unconditional side also has its
            image latents zeroed; the rays stay.
        image_latents: Clean latents of an image per object.
        control: A ControlNet.
        eta: Noise of the DDIM scheduler, in [0, 1]; the others have none or their own.
        generator: For schedulers that add noise: one for the batch, or one per object.
        on_step: Called with the number of steps that are done.
    """
    set_steps(scheduler, num_steps, latents.device)
    num_objects, num_views = latents.shape[:2]
    num_in = num_views + int(image_latents is not None)
    guided = guidance is not None and bool((guidance != 1).any()) and negative is not None
    both = negative.joined(text) if guided and negative is not None else text
    weights = None if guidance is None else guidance.to(latents)[:, None, None, None]
    x = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    dtype = next(denoiser.parameters()).dtype
    draws: Any = generator
    if generator is not None and not isinstance(generator, torch.Generator):
        draws = [single for single in generator for _ in range(num_views)]
    more: dict[str, Any] = {}
    if "eta" in scheduler.step.__code__.co_varnames[: scheduler.step.__code__.co_argcount]:
        more["eta"] = eta
    for index, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        fed = model_input(scaled, rays, image_latents)
        if guided:
            without = None if image_latents is None else torch.zeros_like(image_latents)
            fed = torch.cat([model_input(scaled, rays, without), fed])
        fed = fed.to(dtype)
        residuals = None
        if control is not None:
            maps = control_views(control.maps.to(fed), num_in)
            maps = torch.cat([maps, maps]) if guided else maps
            residuals = control.network(fed, timestep, both, maps, num_views=num_in, scale=control.scale)
        predicted = denoiser(fed, timestep, both, num_views=num_in, residuals=residuals)
        predicted = predicted.to(x).unflatten(0, (-1, num_in))[:, num_in - num_views :]
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + weights * (conditional - unconditional)
        flat = scheduler.step(
            predicted.flatten(0, 1), timestep, x.flatten(0, 1), generator=draws, return_dict=False, **more
        )[0]
        x = flat.unflatten(0, (num_objects, num_views))
        if on_step is not None:
            on_step(index + 1)
    return x
