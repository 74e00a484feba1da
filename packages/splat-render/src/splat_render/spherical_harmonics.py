"""Real spherical harmonics of degree 0 to 3 in PyTorch: the view-dependent colors of Gaussians.

Order and signs are those of 3D Gaussian Splatting's PLY files (and of gsplat).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

C0 = 0.28209479177387814
"""Value of the constant basis function: 1 / (2 sqrt(pi))."""


def rgb_to_sh0(rgb: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Coefficient of degree 0 with which a Gaussian has color `rgb` (in [0, 1]) from every side."""
    return (rgb - 0.5) / C0


def sh0_to_rgb(sh0: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """The inverse of `rgb_to_sh0`; not clamped."""
    return sh0 * C0 + 0.5


def sh_bases(degree: int, dirs: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n k"]:
    """Values of the (degree + 1)^2 basis functions.

    Args:
        degree: Highest degree, in [0, 3].
        dirs: Unit directions, from the camera to the Gaussian, in world coordinates.

    Raises:
        ValueError: If the degree is out of range.
    """
    if not 0 <= degree <= 3:
        raise ValueError(f"degree must be in [0, 3], got {degree}")
    x, y, z = dirs.unbind(-1)
    bases = [torch.full_like(x, C0)]
    if degree >= 1:
        c = math.sqrt(3 / (4 * math.pi))
        bases += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = math.sqrt(15 / (4 * math.pi))
        bases += [c * x * y, -c * y * z, math.sqrt(5 / (16 * math.pi)) * (2 * z**2 - x**2 - y**2)]
        bases += [-c * x * z, 0.5 * c * (x**2 - y**2)]
    if degree >= 3:
        outer, inner = math.sqrt(35 / (32 * math.pi)), math.sqrt(21 / (32 * math.pi))
        c = math.sqrt(105 / (4 * math.pi))
        bases += [-outer * y * (3 * x**2 - y**2), c * x * y * z, -inner * y * (4 * z**2 - x**2 - y**2)]
        bases += [math.sqrt(7 / (16 * math.pi)) * z * (2 * z**2 - 3 * x**2 - 3 * y**2)]
        bases += [-inner * x * (4 * z**2 - x**2 - y**2), 0.5 * c * z * (x**2 - y**2)]
        bases += [-outer * x * (x**2 - 3 * y**2)]
    return torch.stack(bases, dim=-1)


def evaluate_sh(
    degree: int, dirs: Float[Tensor, "n 3"], coefficients: Float[Tensor, "n k 3"]
) -> Float[Tensor, "n 3"]:  # fmt: skip
    """Sum of the basis functions up to `degree`, weighted by the first (degree + 1)^2 coefficients.

    Args:
        degree: Highest degree to use, in [0, 3].
        dirs: Directions from the camera to the Gaussians in world coordinates; normalized here.
        coefficients: At least (degree + 1)^2 of them.

    Returns:
        The sum; a renderer adds 0.5 and clamps at 0.
    """
    bases = sh_bases(degree, torch.nn.functional.normalize(dirs, dim=-1))
    return torch.einsum("nk,nkc->nc", bases, coefficients[:, : bases.shape[-1]])
