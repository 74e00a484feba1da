"""The record of a splat's raw parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from splat_render.spherical_harmonics import rgb_to_sh0


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussians:
    """Raw parameters of `n` Gaussians in world (scene) coordinates, as an optimizer sees them.

    The tensors may require gradients. All of them live on one device and hold float32.
    """

    means: Float[Tensor, "n 3"]
    """Centers, in world coordinates."""
    log_scales: Float[Tensor, "n 3"]
    """Natural logarithm of the standard deviations along the Gaussian's own axes, in scene units."""
    quats_wxyz: Float[Tensor, "n 4"]
    """Rotations of the Gaussians' axes into the world; any length but zero, normalized where they are used."""
    logit_opacities: Float[Tensor, " n"]
    """Opacities before the sigmoid."""
    sh0: Float[Tensor, "n 1 3"]
    """Spherical harmonics of degree 0: rgb = 0.5 + 0.2820948 * sh0 + view-dependent part."""
    sh_rest: Float[Tensor, "n k 3"]
    """Spherical harmonics of degrees 1 and up, k = (degree + 1)^2 - 1 of them."""

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        wanted = {
            "means": (n, 3),
            "log_scales": (n, 3),
            "quats_wxyz": (n, 4),
            "logit_opacities": (n,),
            "sh0": (n, 1, 3),
            "sh_rest": (n, self.sh_rest.shape[1] if self.sh_rest.ndim == 3 else 0, 3),
        }
        for name, shape in wanted.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ValueError(f"Gaussians.{name} must have shape {list(shape)}, got {list(found)}")
        num_bases = self.sh_rest.shape[1] + 1
        if math.isqrt(num_bases) ** 2 != num_bases:
            raise ValueError(
                f"Gaussians.sh_rest must hold (degree + 1)^2 - 1 coefficients (0, 3, 8 or 15), got {num_bases - 1}"
            )

    @classmethod
    def from_rgb(
        cls,
        *,
        means: Float[Tensor, "n 3"],
        scales: Float[Tensor, "n 3"],
        quats_wxyz: Float[Tensor, "n 4"],
        opacities: Float[Tensor, " n"],
        rgb: Float[Tensor, "n 3"],
    ) -> Gaussians:
        """Gaussians of plain colors, without view-dependent ones; differentiable in every argument.

        Args:
            means: Centers, in world coordinates.
            scales: Standard deviations along the own axes, in scene units, above 0.
            quats_wxyz: Rotations; any length but zero.
            opacities: In [0, 1]; kept 1e-6 away from both ends, where the logit is infinite.
            rgb: Colors, at least 0; those in [0, 1] are drawn as they are.
        """
        return cls(
            means=means,
            log_scales=torch.log(scales),
            quats_wxyz=quats_wxyz,
            logit_opacities=torch.logit(opacities, eps=1e-6),
            sh0=rgb_to_sh0(rgb)[:, None, :],
            sh_rest=rgb.new_zeros((rgb.shape[0], 0, 3)),
        )

    def selected(self, chosen: Tensor) -> Gaussians:
        """Those that a mask ``[n]`` of booleans or a list of indices names."""
        return self.mapped(lambda tensor: tensor[chosen])

    def __len__(self) -> int:
        """Number of Gaussians."""
        return self.means.shape[0]

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Standard deviations along the own axes, in scene units."""
        return torch.exp(self.log_scales)

    @property
    def opacities(self) -> Float[Tensor, " n"]:
        """Opacities in (0, 1)."""
        return torch.sigmoid(self.logit_opacities)

    @property
    def sh_degree_max(self) -> int:
        """The highest degree of spherical harmonics that is stored."""
        return math.isqrt(self.sh_rest.shape[1] + 1) - 1

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.means.device

    def parameters(self) -> dict[str, Tensor]:
        """The raw tensors by field name, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """The same record with `function` applied to every tensor."""
        return Gaussians(**{name: function(tensor) for name, tensor in self.parameters().items()})

    def to(self, device: str | torch.device) -> Gaussians:
        """The same Gaussians on another device."""
        return self.mapped(lambda tensor: tensor.to(device))

    def detach(self) -> Gaussians:
        """The same values without gradients; shares the memory."""
        return self.mapped(lambda tensor: tensor.detach())

    def clone(self) -> Gaussians:
        """A detached copy with memory of its own."""
        return self.mapped(lambda tensor: tensor.detach().clone())
