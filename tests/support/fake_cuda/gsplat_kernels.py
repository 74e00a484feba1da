"""Slow stand-ins for gsplat's compiled functions, with their names, arguments and results (gsplat 1.5.3).

Projection and spherical harmonics are gsplat's own reference functions; blending looks at every Gaussian in every
pixel. Backward passes differentiate the forward ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

WAITING = frozenset({"intersect_tile", "projection_ewa_3dgs_packed_fwd"})
"""These read back from the device how much memory their results need."""

MIN_ALPHA, MAX_ALPHA, MIN_LIGHT = 1 / 255, 0.999, 1e-4


def _project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, eps2d: float,
    near: float, far: float, compensate: bool,
) -> tuple[Any, ...]:  # fmt: skip
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    covariances: Any
    covariances, _ = _quat_scale_to_covar_preci(quats, scales, compute_covar=True, compute_preci=False)
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        means, covariances, viewmats, Ks, width, height, eps2d, near, far, compensate
    )
    return radii.to(torch.int32), means2d, depths, conics, compensations


def _gradients(outputs: list[Tensor], inputs: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(outputs, inputs, upstream, allow_unused=True)
    return [
        torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(inputs, found, strict=True)
    ]


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


@torch.no_grad()
def _fused_forward(
    means, covars, quats, scales, opacities, viewmats, Ks, width, height, eps2d, near, far, clip, comp, _
):
    radii, means2d, depths, conics, compensations = _project(
        means, quats, scales, viewmats, Ks, width, height, eps2d, near, far, comp
    )
    # Kernels leave the rows of what they cull as the memory was.
    culled = (radii <= 0).any(dim=-1)
    for values in (means2d, depths, conics):
        values[culled] = torch.nan
    return radii, means2d, depths, conics, compensations if comp else torch.empty(0)


def _fused_backward(
    means, covars, quats, scales, viewmats, Ks, width, height, eps2d, _, radii, conics, compensations, v_means2d,
    v_depths, v_conics, v_compensations, wants_viewmats,
):  # fmt: skip
    visible = (radii > 0).all(dim=-1)
    with torch.enable_grad():
        means, quats, scales = inputs = _leaves(means, quats, scales)
        _, means2d, depths, conics, found = _project(
            means, quats, scales, viewmats, Ks, width, height, eps2d, 1e-6, 1e10, v_compensations is not None
        )
        outputs, upstream = [means2d, depths, conics], [v_means2d, v_depths, v_conics]
        if v_compensations is not None:
            outputs, upstream = [*outputs, found], [*upstream, v_compensations]
        outputs = [values[visible] for values in outputs]
        v_means, v_quats, v_scales = _gradients(outputs, inputs, [values[visible] for values in upstream])
    return v_means, None, v_quats, v_scales, torch.zeros_like(viewmats) if wants_viewmats else None


@torch.no_grad()
def _packed_forward(
    means, covars, quats, scales, opacities, viewmats, Ks, width, height, eps2d, near, far, clip, comp, kind
):
    radii, means2d, depths, conics, compensations = _fused_forward(
        means, covars, quats, scales, opacities, viewmats, Ks, width, height, eps2d, near, far, clip, comp, kind
    )
    camera_idx, gaussian_idx = torch.nonzero((radii > 0).all(dim=-1), as_tuple=True)
    pick = lambda values: values[camera_idx, gaussian_idx].contiguous()  # noqa: E731
    indptr = torch.zeros(len(viewmats) + 1, dtype=torch.int32)
    return (
        indptr, torch.zeros_like(camera_idx), camera_idx, gaussian_idx, pick(radii), pick(means2d), pick(depths),
        pick(conics), pick(compensations) if comp else torch.empty(0),
    )  # fmt: skip


def _packed_backward(
    means, covars, quats, scales, viewmats, Ks, width, height, eps2d, kind, batch_idx, camera_idx, gaussian_idx, conics,
    compensations, v_means2d, v_depths, v_conics, v_compensations, wants_viewmats, sparse,
):  # fmt: skip
    shape = (len(viewmats), len(means))
    radii = torch.zeros(*shape, 2, dtype=torch.int32)
    radii[camera_idx, gaussian_idx] = 1

    def spread(values: Tensor) -> Tensor:
        rows = values.new_zeros(*shape, *values.shape[1:])
        rows[camera_idx, gaussian_idx] = values
        return rows

    v_means, _, v_quats, v_scales, v_viewmats = _fused_backward(
        means, covars, quats, scales, viewmats, Ks, width, height, eps2d, kind, radii, None, None, spread(v_means2d),
        spread(v_depths), spread(v_conics), None if v_compensations is None else spread(v_compensations),
        wants_viewmats,
    )  # fmt: skip
    if not sparse:
        return v_means, None, v_quats, v_scales, v_viewmats
    assert len(viewmats) == 1, "rows of several cameras are not told apart here"
    rows = [values[gaussian_idx].contiguous() for values in (v_means, v_quats, v_scales)]
    return rows[0], torch.zeros(len(gaussian_idx), 6), rows[1], rows[2], v_viewmats


def _harmonics(degree: int, dirs: Tensor, coefficients: Tensor, masks: Tensor | None) -> Tensor:
    from gsplat.cuda._torch_impl import _spherical_harmonics

    colors = _spherical_harmonics(degree, dirs, coefficients)
    return colors if masks is None else torch.where(masks[..., None], colors, 0.0)


@torch.no_grad()
def _harmonics_forward(degree, dirs, coefficients, masks):
    return _harmonics(degree, dirs, coefficients, masks).contiguous()


def _harmonics_backward(num_bases, degree, dirs, coefficients, masks, v_colors, wants_dirs):
    with torch.enable_grad():
        inputs = _leaves(coefficients, dirs)
        v_coefficients, v_dirs = _gradients([_harmonics(degree, inputs[1], inputs[0], masks)], inputs, [v_colors])
    return v_coefficients, v_dirs if wants_dirs else None


@torch.no_grad()
def _intersect_tile(means2d, radii, depths, image_idx, gaussian_idx, num_images, size, columns, rows, sort, segmented):
    """One entry per visible Gaussian and image, in the order of depth; tiles are not told apart."""
    visible = torch.nonzero((radii > 0).all(dim=-1).flatten()).flatten()
    images = torch.arange(num_images).repeat_interleave(radii.shape[-2]) if image_idx is None else image_idx
    order = torch.argsort(depths.flatten()[visible], stable=True)
    order = order[torch.argsort(images[visible][order], stable=True)]
    flatten_idx = visible[order]
    return (radii > 0).all(dim=-1).to(torch.int32), images[flatten_idx].to(torch.int64), flatten_idx.to(torch.int32)


@torch.no_grad()
def _intersect_offset(isect_idx, num_images, columns, rows):
    starts = torch.searchsorted(isect_idx, torch.arange(num_images))
    return starts.to(torch.int32)[:, None, None].expand(num_images, rows, columns).contiguous()


def _blend(gaussians: Sequence[Tensor], width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Colors and opacity of one image, from its Gaussians in the order of depth, and their distances to the pixels.

    Args:
        gaussians: Centers, conics, colors and opacities.
        width: Of the image.
        height: Of the image.
    """
    means2d, conics, colors, opacities = gaussians
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    distances = means2d[:, None] - torch.stack([x, y], dim=-1).reshape(1, -1, 2)
    dx, dy = distances.unbind(dim=-1)
    a, b, c = conics[:, None].unbind(dim=-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alphas = (opacities[:, None] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    alphas = torch.where((sigma >= 0) & (alphas >= MIN_ALPHA), alphas, 0.0)
    light = torch.cumprod(1 - alphas, dim=0)
    alphas = torch.where(light.detach() > MIN_LIGHT, alphas, 0.0)
    light = torch.cumprod(1 - alphas, dim=0)
    before = torch.cat([torch.ones_like(light[:1]), light[:-1]])
    rest = light[-1] if len(light) else torch.ones(height * width)
    image = torch.einsum("np,nc->pc", before * alphas, colors).reshape(height, width, -1)
    return image, (1 - rest).reshape(height, width, 1), distances


def _of_images(offsets: Tensor, flatten_idx: Tensor) -> list[Tensor]:
    """Indices of each image's Gaussians into flattened ones."""
    starts = [*offsets.reshape(-1, *offsets.shape[-2:])[:, 0, 0].tolist(), len(flatten_idx)]
    return [flatten_idx[start:stop].long() for start, stop in itertools.pairwise(starts)]


@torch.no_grad()
def _raster_forward(means2d, conics, colors, opacities, backgrounds, masks, width, height, tile, offsets, flatten_idx):
    assert backgrounds is None, "our code lays backgrounds itself"
    channels = colors.shape[-1]
    flat = [means2d.reshape(-1, 2), conics.reshape(-1, 3), colors.reshape(-1, channels), opacities.reshape(-1)]
    blends = [_blend([values[own] for values in flat], width, height) for own in _of_images(offsets, flatten_idx)]
    shape = (*offsets.shape[:-2], height, width)
    images = torch.stack([blend[0] for blend in blends]).reshape(*shape, channels)
    alphas = torch.stack([blend[1] for blend in blends]).reshape(*shape, 1)
    return images.contiguous(), alphas, torch.zeros(shape, dtype=torch.int32)


def _raster_backward(
    means2d, conics, colors, opacities, backgrounds, masks, width, height, tile, offsets, flatten_idx, alphas, last_idx,
    v_images, v_alphas, absgrad,
):  # fmt: skip
    channels = colors.shape[-1]
    flat = [means2d.reshape(-1, 2), conics.reshape(-1, 3), colors.reshape(-1, channels), opacities.reshape(-1)]
    totals, absolute = [torch.zeros_like(values) for values in flat], torch.zeros_like(flat[0])
    v_images, v_alphas = v_images.reshape(-1, height, width, channels), v_alphas.reshape(-1, height, width, 1)
    for own, v_image, v_alpha in zip(_of_images(offsets, flatten_idx), v_images, v_alphas, strict=True):
        if not len(own):
            continue
        with torch.enable_grad():
            inputs = _leaves(*(values[own] for values in flat))
            image, alpha, distances = _blend(inputs, width, height)
            *found, per_pixel = _gradients([image, alpha], [*inputs, distances], [v_image, v_alpha])
        for total, gradient in zip(totals, found, strict=True):
            total[own] += gradient
        absolute[own] += per_pixel.abs().sum(dim=1)
    shaped = [
        total.reshape(values.shape) for total, values in zip(totals, (means2d, conics, colors, opacities), strict=True)
    ]
    return absolute.reshape(means2d.shape) if absgrad else torch.empty(0), *shaped


@torch.no_grad()
def _adam(parameter, gradient, mean, square, valid, rate, beta1, beta2, eps):
    """Adam without correction of its bias, of the rows that are visible."""
    assert valid.dtype == torch.bool, valid.dtype
    assert valid.shape == parameter.shape[:1], (valid.shape, parameter.shape)
    mean[valid] = beta1 * mean[valid] + (1 - beta1) * gradient[valid]
    square[valid] = beta2 * square[valid] + (1 - beta2) * gradient[valid] ** 2
    parameter[valid] -= rate * mean[valid] / (square[valid].sqrt() + eps)


KERNELS: dict[str, Callable[..., Any]] = {
    "projection_ewa_3dgs_fused_fwd": _fused_forward,
    "projection_ewa_3dgs_fused_bwd": _fused_backward,
    "projection_ewa_3dgs_packed_fwd": _packed_forward,
    "projection_ewa_3dgs_packed_bwd": _packed_backward,
    "spherical_harmonics_fwd": _harmonics_forward,
    "spherical_harmonics_bwd": _harmonics_backward,
    "intersect_tile": _intersect_tile,
    "intersect_offset": _intersect_offset,
    "rasterize_to_pixels_3dgs_fwd": _raster_forward,
    "rasterize_to_pixels_3dgs_bwd": _raster_backward,
    "adam": _adam,
}
