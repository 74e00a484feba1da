"""Density control: which Gaussians multiply, move or go while training runs.

`DensityControl` is what the trainer calls after each optimizer step; `make_density_control` chooses between adaptive
density control (`densify_adc`) and Markov chain Monte Carlo (`densify_mcmc`). Everything random comes from one
generator on the device of the Gaussians: drawn on the CPU, the noise of MCMC would take longer than the rest of a step
on a GPU.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from splat_recon.config import AdcConfig, McmcConfig
from splat_recon.optim import GaussianOptimizer
from splat_render.output import RenderStats

MIN_GAUSSIANS = 16
"""Pruning leaves at least this many: the most opaque ones. An empty scene could never recover."""


@runtime_checkable
class DensityControl(Protocol):
    """Changes the Gaussians of an optimizer between two steps."""

    def after_step(self, optimizer: GaussianOptimizer, stats: Sequence[RenderStats], step: int) -> None:
        """Look at the gradients of one step's renders and, when it is time, change the Gaussians.

        Args:
            optimizer: Holds the Gaussians; its step is done.
            stats: Of each of the step's renders, after the backward pass of the mean of their losses.
            step: Counted from 0.
        """
        ...

    def is_due(self, step: int) -> bool:
        """Whether `after_step` replaces Gaussians, or overwrites their values, after this step."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The running state, for a checkpoint."""
        ...

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave."""
        ...


def make_density_control(
    config: AdcConfig | McmcConfig, *, extent: float, generator: torch.Generator
) -> DensityControl:
    """The strategy that a config asks for.

    Args:
        extent: Size of the scene in scene units.
        generator: On the device of the Gaussians; the strategy draws from it and never seeds it.
    """
    from splat_recon.gaussians.densify_adc import AdaptiveDensityControl
    from splat_recon.gaussians.densify_mcmc import Mcmc

    if isinstance(config, McmcConfig):
        return Mcmc(config, generator=generator)
    return AdaptiveDensityControl(config, extent=extent, generator=generator)


def randn(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers on the device of `like`, where the generator is."""
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=like.device)


def rotated_by_quats(quats_wxyz: Float[Tensor, "n 4"], vectors: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """Vectors from each Gaussian's own axes into the world; quaternions of any length."""
    quats = torch.nn.functional.normalize(quats_wxyz, dim=-1)
    w, xyz = quats[..., :1], quats[..., 1:].expand_as(vectors)
    twice_cross = 2 * torch.linalg.cross(xyz, vectors)
    return vectors + w * twice_cross + torch.linalg.cross(xyz, twice_cross)
