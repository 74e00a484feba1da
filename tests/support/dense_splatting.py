"""A slow, plain renderer in float64 PyTorch: every Gaussian at every pixel, gradients by autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat_render import Camera, Gaussians
from splat_render.spherical_harmonics import evaluate_sh


@dataclass(frozen=True)
class DenseOutput:
    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    means2d: Tensor
    offsets: Tensor
    """From every pixel to every projected center, in the order of depth; its gradient is that of each pixel alone."""


def render_densely(
    gaussians: Gaussians,
    camera: Camera,
    *,
    sh_degree: int,
    background: Tensor | None = None,
    near: float = 0.01,
    eps2d: float = 0.3,
    max_alpha: float = 0.999,
    antialiased: bool = False,
) -> DenseOutput:
    T_cam_world = torch.from_numpy(camera.T_cam_world)
    R, t = T_cam_world[:3, :3], T_cam_world[:3, 3]
    p_cam = gaussians.means @ R.T + t
    visible = p_cam[:, 2] > near
    order = torch.argsort(p_cam[:, 2].detach(), stable=True)
    order = order[visible[order]]
    p_cam, means = p_cam[order], gaussians.means[order]

    means2d, covariances = _project(p_cam, _covariances(gaussians, order), R, camera)
    means2d.retain_grad()
    sharp = covariances
    blurred = covariances + eps2d * torch.eye(2, dtype=torch.float64)
    opacities = torch.sigmoid(gaussians.logit_opacities[order])
    if antialiased:
        opacities = opacities * torch.sqrt((torch.det(sharp) / torch.det(blurred)).clamp(min=0))

    dirs = means - torch.from_numpy(camera.center_world)
    coefficients = torch.cat([gaussians.sh0, gaussians.sh_rest], dim=1)[order]
    colors = torch.clamp_min(evaluate_sh(sh_degree, dirs, coefficients) + 0.5, 0)

    rows, columns = torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(-1, 2).double()
    d = means2d[:, None] - pixels[None]
    d.retain_grad()
    sigma = 0.5 * torch.einsum("npi,nij,npj->np", d, torch.linalg.inv(blurred), d)
    alphas = torch.clamp(opacities[:, None] * torch.exp(-sigma), max=max_alpha)
    alphas = torch.where((alphas >= 1 / 255) & (sigma >= 0), alphas, torch.zeros_like(alphas))
    after = torch.cumprod(1 - alphas.detach(), dim=0)
    alphas = torch.where(after > 1e-4, alphas, torch.zeros_like(alphas))
    light = torch.cumprod(1 - alphas, dim=0)
    before = torch.cat([torch.ones_like(light[:1]), light[:-1]])
    weights = before * alphas
    rest = light[-1] if len(light) else torch.ones(len(pixels), dtype=torch.float64)

    rgb = torch.einsum("np,nc->pc", weights, colors)
    if background is not None:
        rgb = rgb + rest[:, None] * background.double()
    alpha = 1 - rest
    depth = (weights * p_cam[:, 2:]).sum(0) / alpha.clamp(min=1e-10)
    size = (camera.height, camera.width, -1)
    return DenseOutput(rgb.reshape(size), alpha.reshape(size), depth.reshape(size), means2d, d)


def _covariances(gaussians: Gaussians, order: Tensor) -> Tensor:
    w, x, y, z = torch.nn.functional.normalize(gaussians.quats_wxyz[order], dim=-1).unbind(-1)
    first = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1)
    second = torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1)
    third = torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1)
    scaled = torch.stack([first, second, third], -2) * torch.exp(gaussians.log_scales[order])[:, None]
    return scaled @ scaled.mT


def _project(p_cam: Tensor, covariances: Tensor, R: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    x, y, z = p_cam.unbind(-1)
    (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
    beside_x, beside_y = 0.15 * camera.width / fx, 0.15 * camera.height / fy
    slope_x = torch.clamp(x / z, -cx / fx - beside_x, (camera.width - cx) / fx + beside_x)
    slope_y = torch.clamp(y / z, -cy / fy - beside_y, (camera.height - cy) / fy + beside_y)
    nothing = torch.zeros_like(z)
    J = torch.stack([fx / z, nothing, -fx * slope_x / z, nothing, fy / z, -fy * slope_y / z], -1).reshape(-1, 2, 3)
    P = J @ R
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), P @ covariances @ P.mT


def assert_gradients_agree(found: Tensor, wanted: Tensor, name: str, *, rtol: float, atol: float) -> None:
    """gsplat's measures: close element by element but for a few flips at thresholds, same direction, same length."""
    found, wanted = found.detach().double(), wanted.detach().double()
    assert torch.isfinite(found).all(), name
    off = ~torch.isclose(found, wanted, rtol=rtol, atol=atol)
    assert off.double().mean() <= 1e-3 or off.sum() <= 1, f"{name}: {int(off.sum())} of {off.numel()} elements differ"
    length = wanted.norm()
    if length > 0:
        assert (found - wanted).norm() <= 1e-2 * length, name
        cosine = (found * wanted).sum() / (found.norm() * length)
        assert cosine >= 0.999, name
