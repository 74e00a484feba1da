"""Gaussians in another frame: a similarity moves, turns and scales them, and turns their view-dependent colors."""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64

from splat_render.gaussians import Gaussians
from splat_render.poses import decompose_similarity, quat_wxyz_from_matrix


def transformed(gaussians: Gaussians, T_a_b: Float[np.ndarray, "4 4"]) -> Gaussians:
    """Gaussians of frame b in frame a: the same picture from a camera that was moved along.

    Spherical harmonics of degrees 1 to 3 are rotated exactly; opacities stay.

    Raises:
        ValueError: The matrix is not a similarity.
    """
    scale, rotation, translation = decompose_similarity(T_a_b)

    def like(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(gaussians.means)

    # Positions are moved in float64: worlds of SfM may be far from their origin.
    device = gaussians.device
    R_a_b, t_a_b = (torch.as_tensor(each, dtype=torch.float64, device=device) for each in (rotation, translation))
    means = gaussians.means.double() @ (scale * R_a_b.T) + t_a_b
    sh_rest = gaussians.sh_rest.clone()
    for degree in range(1, gaussians.sh_degree_max + 1):
        band = slice(degree * degree - 1, (degree + 1) ** 2 - 1)
        mixing = like(harmonic_rotation(degree, rotation))
        sh_rest[:, band] = torch.einsum("ij,njc->nic", mixing, gaussians.sh_rest[:, band])
    return Gaussians(
        means=means.to(gaussians.means.dtype),
        log_scales=gaussians.log_scales + math.log(scale),
        quats_wxyz=_multiplied(like(quat_wxyz_from_matrix(rotation)), gaussians.quats_wxyz),
        logit_opacities=gaussians.logit_opacities,
        sh0=gaussians.sh0,
        sh_rest=sh_rest,
    )


def _multiplied(quat: Float[torch.Tensor, " 4"], quats: Float[torch.Tensor, "n 4"]) -> Float[torch.Tensor, "n 4"]:
    """The rotation `quat` after each of `quats`; keeps the lengths of `quats`."""
    w, x, y, z = quat
    matrix = torch.stack(
        [
            torch.stack([w, -x, -y, -z]),
            torch.stack([x, w, -z, y]),
            torch.stack([y, z, w, -x]),
            torch.stack([z, -y, x, w]),
        ]
    )
    # In float64: rounded from there, the result does not depend on how the tensors lie in memory.
    return (quats.double() @ matrix.double().T).to(quats.dtype)


def harmonic_rotation(degree: int, rotation: Float[np.ndarray, "3 3"]) -> Float64[np.ndarray, "m m"]:
    """The matrix that turns the coefficients of one degree so that the colors follow the rotation.

    It is the solution of Y(d) M = Y(R^T d) over fixed directions d, which is exact because the harmonics of one degree
    span a space that rotations do not leave.
    """
    directions = _directions(4 * (2 * degree + 1))
    basis = harmonics(degree, directions)
    turned = harmonics(degree, directions @ rotation)
    return np.linalg.lstsq(basis, turned, rcond=None)[0]


def _directions(count: int) -> Float64[np.ndarray, "n 3"]:
    """Directions spread over the sphere on a spiral."""
    z = 1 - (2 * np.arange(count) + 1) / count
    azimuth = np.pi * (3 - math.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def harmonics(degree: int, directions: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n m"]:
    """The 2 degree + 1 real spherical harmonics of one degree (0 to 3), in 3D Gaussian Splatting's order and signs."""
    x, y, z = np.asarray(directions, dtype=np.float64).T
    one = np.ones_like(x)
    bands = [
        lambda: [0.28209479177387814 * one],
        lambda: [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x],
        lambda: [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ],
        lambda: [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ],
    ]
    if not 0 <= degree < len(bands):
        raise ValueError(f"degree must be 0 to {len(bands) - 1}, got {degree}")
    return np.stack(bands[degree](), axis=1)
