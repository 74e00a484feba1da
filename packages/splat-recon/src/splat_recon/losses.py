"""What training minimizes: L1 and SSIM against a photo, per-pixel weights, and regularization.

SSIM here is the common one: Gaussian window of 11 pixels, standard deviation 1.5, values in [0, 1], averaged over the
pixels whose window lies inside the image ("valid" padding, as gsplat trains).
"""

import functools
import logging
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from image_metrics import ssim_map
from splat_recon import ssim_kernel
from splat_render.config import RenderConfig
from splat_render.cpu.recycling import RECYCLER
from splat_render.cpu.workers import workers
from splat_render.gaussians import Gaussians

logger = logging.getLogger(__name__)

GRAY = ssim_kernel.GRAY
"""What stands in both images where a pixel does not count."""

AGREEMENT = 1e-3
"""How far kernels may be from torch's operations, as a share of the result; rounding alone leaves about 1e-6."""


def l1(
    rendered: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    pixel_weight: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean absolute difference. `pixel_weight` multiplies each pixel; the mean stays one over all pixels."""
    difference = (rendered - target).abs()
    if pixel_weight is not None:
        difference = difference * pixel_weight[..., None]
    return difference.mean()


def ssim(
    rendered: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    pixel_weight: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean SSIM, times `pixel_weight` at each window's center; the mean stays one over all windows.

    Gradients flow to `rendered` only. Images must have at least 11x11 pixels.

    Raises:
        ValueError: An image is smaller than the window.
    """
    ssim_kernel.check_size(*rendered.shape[:2])
    target = target.detach()
    if (comparison := _comparison(rendered)) is not None:
        return _compared(comparison, rendered, target, pixel_weight, (0.0, 1.0), hidden_at=-1.0)
    return _plain_ssim(rendered, target, pixel_weight)


def photometric(
    rendered: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    *,
    ssim_weight: float,
    pixel_weight: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, ""]:
    """(1 - ssim_weight) L1 + ssim_weight (1 - SSIM), weighted per pixel.

    A pixel of weight zero has no say at all: there both images are gray, so that neither leaks into the SSIM windows of
    its neighbors.
    """
    best = 1.0 if pixel_weight is None else _crop(pixel_weight).mean()
    weights = (1 - ssim_weight, -ssim_weight)
    if ssim_weight > 0 and (comparison := _comparison(rendered)) is not None:
        return ssim_weight * best + _compared(comparison, rendered, target, pixel_weight, weights, hidden_at=0.0)
    if ssim_weight == 0:
        return l1(*_grayed(rendered, target, pixel_weight), pixel_weight)
    return ssim_weight * best + _plainly_compared(rendered, target, pixel_weight, weights)


def regularization(gaussians: Gaussians, *, opacity_reg: float, scale_reg: float) -> Float[Tensor, ""] | float:
    """Mean opacity and mean scale, weighted; exactly 0.0 when both weights are."""
    total: Tensor | float = 0.0
    if opacity_reg > 0:
        total = total + opacity_reg * gaussians.opacities.mean()
    if scale_reg > 0:
        total = total + scale_reg * gaussians.scales.mean()
    return total


def _comparison(rendered: Tensor) -> type[torch.autograd.Function] | None:
    """What compares images in one go where they are; None where torch's operations have to do."""
    if rendered.dtype != torch.float32:
        return None
    if rendered.device.type == "cpu":
        return _Comparison
    return fused_comparison(rendered.device) if rendered.device.type == "cuda" else None


@functools.cache
def fused_comparison(device: torch.device) -> type[torch.autograd.Function] | None:
    """The kernels of `ssim_triton` as a differentiable function, where they work on this device; tried once.

    Triton compiles them when they are first used. What they find in a small image must be what torch's operations find
    there; else, and where there is no Triton, training goes on with those, several times slower in this part.
    """
    try:
        from splat_recon.ssim_triton import FusedComparison

        _check_agreement(FusedComparison, device)
    except ImportError as error:
        logger.info("SSIM runs as many operations of torch's: there is no Triton (%s)", error)
        return None
    except Exception as error:  # Triton fails in many ways: no C compiler, a GPU that it does not know, a full disk.
        logger.warning("SSIM runs as many operations of torch's, as its kernels cannot be used: %s", error)
        return None
    return FusedComparison


@torch.inference_mode(mode=False)
@torch.enable_grad()
def _check_agreement(comparison: type[torch.autograd.Function], device: torch.device) -> None:
    """Compare value and gradient with torch's operations.

    Raises:
        RuntimeError: They differ.
    """
    generator = torch.Generator().manual_seed(0)
    rendered, target, pixel_weight = (torch.rand(13, 14, c, generator=generator).to(device) for c in (3, 3, 1))
    pixel_weight, weights = pixel_weight[..., 0].round(), (0.8, -0.2)
    found = []
    for compare in (functools.partial(_compared, comparison, hidden_at=0.0), _plainly_compared):
        image = rendered.clone().requires_grad_()
        value = compare(image, target, pixel_weight, weights)
        (gradient,) = torch.autograd.grad(value, image)
        found.append(torch.cat([value.detach().reshape(1), gradient.flatten()]))
    error = float((found[0] - found[1]).norm() / found[1].norm())
    if not error < AGREEMENT:
        raise RuntimeError(f"they differ from torch's operations by {error:.1e} of the result")


def _plainly_compared(
    rendered: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    pixel_weight: Float[Tensor, "h w"] | None,
    weights: tuple[float, float],
) -> Float[Tensor, ""]:
    """`_compared` in torch's operations, gray where a pixel's weight is zero."""
    rendered, target = _grayed(rendered, target, pixel_weight)
    return weights[0] * l1(rendered, target, pixel_weight) + weights[1] * _plain_ssim(rendered, target, pixel_weight)


def _grayed(rendered: Tensor, target: Tensor, pixel_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    if pixel_weight is None:
        return rendered, target
    counts = pixel_weight[..., None] > 0
    return torch.where(counts, rendered, GRAY), torch.where(counts, target, GRAY)


def _plain_ssim(rendered: Tensor, target: Tensor, pixel_weight: Tensor | None) -> Float[Tensor, ""]:
    return (ssim_map(rendered, target.detach()) * _valid_weight(rendered, pixel_weight)).mean()


def _compared(
    comparison: type[torch.autograd.Function],
    rendered: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    pixel_weight: Float[Tensor, "h w"] | None,
    weights: tuple[float, float],
    *,
    hidden_at: float,
) -> Float[Tensor, ""]:
    """Mean L1 and mean SSIM times `weights`, summed; where a pixel's weight is `hidden_at` or less, both are gray."""
    ssim_kernel.check_size(*rendered.shape[:2])
    image = rendered if torch.is_grad_enabled() else rendered.detach()
    compared: Any = comparison.apply(image, target.detach().to(image.dtype), pixel_weight, weights, hidden_at)
    return compared


def _crop(pixel_weight: Float[Tensor, "h w"]) -> Float[Tensor, "h_valid w_valid"]:
    border = ssim_kernel.WINDOW // 2
    return pixel_weight[border:-border, border:-border]


def _valid_weight(
    rendered: Float[Tensor, "h w 3"], pixel_weight: Float[Tensor, "h w"] | None
) -> Float[Tensor, "h_valid w_valid 3"]:
    border = 2 * (ssim_kernel.WINDOW // 2)
    height, width = rendered.shape[0] - border, rendered.shape[1] - border
    if pixel_weight is None:
        return rendered.new_ones(height, width, 3)
    return _crop(pixel_weight)[..., None].expand(height, width, 3).contiguous()


class _Comparison(torch.autograd.Function):
    """L1 and SSIM on a CPU as one operation, see `_compared`; the forward finds the gradient along with the value."""

    @staticmethod
    def forward(
        ctx: Any,
        rendered: Tensor,
        target: Tensor,
        pixel_weight: Tensor | None,
        weights: tuple[float, float],
        hidden_at: float,
    ) -> Tensor:
        height, width = rendered.shape[:2]
        image, photo = (tensor.detach().contiguous().view(height, -1).numpy() for tensor in (rendered, target))
        weight = None if pixel_weight is None else pixel_weight.detach().float().contiguous().numpy()
        num_windows = 3 * (height - ssim_kernel.WINDOW + 1) * (width - ssim_kernel.WINDOW + 1)
        factors = np.array([weights[0] / rendered.numel(), weights[1] / num_windows])
        l1_factor, ssim_factor = np.float32(factors[0]), np.float32(factors[1])
        totals = np.empty((height, 2))
        gradient = torch.from_numpy(RECYCLER.empty(tuple(rendered.shape))) if ctx.needs_input_grad[0] else None
        rows = None if gradient is None else gradient.view(height, -1).numpy()
        workers(RenderConfig().threads).run_ranges(
            height,
            lambda start, stop: ssim_kernel.compare_rows(
                start, stop, image, photo, weight, l1_factor, ssim_factor, np.float32(hidden_at), totals, rows
            ),
        )
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return rendered.new_tensor(float(totals.sum(axis=0) @ factors))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        scaled = torch.from_numpy(RECYCLER.empty(tuple(gradient.shape)))
        return torch.mul(gradient, grad_outputs[0], out=scaled), None, None, None, None
