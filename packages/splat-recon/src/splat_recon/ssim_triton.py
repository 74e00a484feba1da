"""L1 and SSIM on a GPU, value and gradient, as one Triton kernel each; the same numbers as `ssim_kernel` has on a CPU.

A program goes down a strip of rows, some columns wide. At each row it filters horizontally, out of the cache, and adds
what it finds to the ten windows that are under way: they live in registers, so that no filtered image is ever written.
The forward kernel leaves three derivatives for each window, from which the backward kernel filters the gradient in the
same way. Triton comes with torch for CUDA on Linux; importing this module elsewhere fails.
"""

# Kernels are no Python: what Triton calls a constant is given as a number.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from splat_recon import ssim_kernel

COLUMNS = 128
"""Values of an interleaved row that a program works on."""

ROWS = 32
"""Rows that a program writes; it reads ten more."""

OPTIONS = {"enable_fp_fusion": True}
"""Products and sums may be rounded once; Triton warns where nobody says whether."""

_WINDOW = tl.constexpr(tuple(ssim_kernel.window_weights().tolist()))
_BORDER = tl.constexpr(ssim_kernel.WINDOW - 1)
_C1, _C2 = tl.constexpr(ssim_kernel.C1), tl.constexpr(ssim_kernel.C2)
_GRAY = tl.constexpr(ssim_kernel.GRAY)


@triton.jit
def _pushed(s, row):
    """Add a filtered row to the ten windows under way; returns them, and the one that this row completes."""
    return (
        row * _WINDOW[0],
        s[0] + row * _WINDOW[1],
        s[1] + row * _WINDOW[2],
        s[2] + row * _WINDOW[3],
        s[3] + row * _WINDOW[4],
        s[4] + row * _WINDOW[5],
        s[5] + row * _WINDOW[6],
        s[6] + row * _WINDOW[7],
        s[7] + row * _WINDOW[8],
        s[8] + row * _WINDOW[9],
    ), s[9] + row * _WINDOW[10]


@triton.jit
def _pair(image, target, weight, y, x, inside, width, hidden_at, HAS_WEIGHT: tl.constexpr):
    """Values of both images and their pixel's weight; both are gray where the weight says so."""
    at = y * width + x
    a, b = tl.load(image + at, mask=inside, other=0.0), tl.load(target + at, mask=inside, other=0.0)
    pixel_weight = tl.where(inside, 1.0, 0.0)
    if HAS_WEIGHT:
        pixel_weight = tl.load(weight + y * (width // 3) + x // 3, mask=inside, other=0.0)
        a, b = tl.where(pixel_weight > hidden_at, a, _GRAY), tl.where(pixel_weight > hidden_at, b, _GRAY)
    return a, b, pixel_weight


@triton.jit
def _forward(
    image, target, weight, maps, totals, height, width, hidden_at,
    HAS_WEIGHT: tl.constexpr, WITH_MAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums of L1 and SSIM of a strip, and the windows' derivatives; a window is named by its first pixel."""
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    # A block like x: the interpreter makes numbers of what a single truth value and a block of them have in common.
    first = tl.program_id(1) * ROWS + tl.zeros([COLUMNS], tl.int32)
    zero = tl.zeros([COLUMNS], tl.float32)
    a_windows = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    b_windows, squares_windows, product_windows = a_windows, a_windows, a_windows
    differences, similarities = zero, zero
    num_maps = (height - _BORDER) * width
    for row in range(ROWS + _BORDER):
        y = first + row
        a_row, b_row, squares_row, product_row = zero, zero, zero, zero
        for tap in tl.static_range(11):
            inside = (x + 3 * tap < width) & (y < height)
            a, b, own = _pair(image, target, weight, y, x + 3 * tap, inside, width, hidden_at, HAS_WEIGHT)
            if tap == 0:
                differences += tl.where(y < first + ROWS, tl.abs(a - b) * own, 0.0)
            tap_weight = _WINDOW[tap]
            a_row += a * tap_weight
            b_row += b * tap_weight
            squares_row += (a * a + b * b) * tap_weight
            product_row += a * b * tap_weight
        a_windows, ma = _pushed(a_windows, a_row)
        b_windows, mb = _pushed(b_windows, b_row)
        squares_windows, squares = _pushed(squares_windows, squares_row)
        product_windows, product = _pushed(product_windows, product_row)
        top = y - _BORDER
        valid = (top >= first) & (y < height) & (x + 3 * _BORDER < width)
        counts = tl.where(valid, 1.0, 0.0)
        if HAS_WEIGHT:
            center = (top + _BORDER // 2) * (width // 3) + x // 3 + _BORDER // 2
            counts = tl.load(weight + center, mask=valid, other=0.0)
        both, means = ma * mb, ma * ma + mb * mb
        below_luminance, below_contrast = means + _C1, squares - means + _C2
        luminance, contrast = 2.0 * both + _C1, 2.0 * (product - both) + _C2
        scale = 1.0 / (below_luminance * below_contrast)
        ssim = luminance * contrast * scale
        similarities += tl.where(valid, ssim * counts, 0.0)
        if WITH_MAPS:
            by_luminance, by_contrast = ssim * scale * below_contrast, ssim * scale * below_luminance
            d_mu = (mb * (contrast - luminance) * scale - ma * (by_luminance - by_contrast)) * counts * 2.0
            at = top * width + x
            tl.store(maps + at, d_mu, mask=valid)
            tl.store(maps + num_maps + at, -by_contrast * counts, mask=valid)
            tl.store(maps + 2 * num_maps + at, 2.0 * luminance * scale * counts, mask=valid)
    program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(totals + 2 * program, tl.sum(differences))
    tl.store(totals + 2 * program + 1, tl.sum(similarities))


@triton.jit
def _backward(
    image, target, weight, maps, upstream, gradient, height, width, hidden_at, l1_factor, ssim_factor,
    HAS_WEIGHT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of a strip, from the derivatives of all windows that its pixels lie in."""
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(1) * ROWS + tl.zeros([COLUMNS], tl.int32)
    zero = tl.zeros([COLUMNS], tl.float32)
    mu_sums = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    aa_sums, ab_sums = mu_sums, mu_sums
    num_maps = (height - _BORDER) * width
    factor = tl.load(upstream)
    for row in range(ROWS + _BORDER):
        y = first + row - _BORDER
        mu_row, aa_row, ab_row = zero, zero, zero
        for tap in tl.static_range(11):
            column = x - 3 * tap
            known = (y >= 0) & (y < height - _BORDER) & (column >= 0) & (column < width - 3 * _BORDER)
            at, tap_weight = y * width + column, _WINDOW[tap]
            mu_row += tl.load(maps + at, mask=known, other=0.0) * tap_weight
            aa_row += tl.load(maps + num_maps + at, mask=known, other=0.0) * tap_weight
            ab_row += tl.load(maps + 2 * num_maps + at, mask=known, other=0.0) * tap_weight
        mu_sums, by_mu = _pushed(mu_sums, mu_row)
        aa_sums, by_aa = _pushed(aa_sums, aa_row)
        ab_sums, by_ab = _pushed(ab_sums, ab_row)
        inside = (y >= first) & (y < height) & (x < width)
        a, b, own = _pair(image, target, weight, y, x, inside, width, hidden_at, HAS_WEIGHT)
        sign = tl.where(a > b, 1.0, tl.where(a < b, -1.0, 0.0))
        found = (by_mu + 2.0 * a * by_aa + b * by_ab) * ssim_factor + sign * own * l1_factor
        tl.store(gradient + y * width + x, tl.where(own > hidden_at, found * factor, 0.0), mask=inside)


class FusedComparison(torch.autograd.Function):
    """L1 and SSIM on a GPU as one operation; arguments and result as `losses` compares images on a CPU."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        rendered: Float[Tensor, "h w 3"],
        target: Float[Tensor, "h w 3"],
        pixel_weight: Float[Tensor, "h w"] | None,
        weights: tuple[float, float],
        hidden_at: float,
    ) -> Float[Tensor, ""]:
        height, width = rendered.shape[0], 3 * rendered.shape[1]
        image, photo = rendered.detach().contiguous(), target.detach().contiguous()
        weight = None if pixel_weight is None else pixel_weight.detach().float().contiguous()
        border = ssim_kernel.WINDOW - 1
        grid = (triton.cdiv(width, COLUMNS), triton.cdiv(height, ROWS))
        with_maps = ctx.needs_input_grad[0]
        maps = image.new_empty(3 if with_maps else 0, height - border, width)
        totals = image.new_empty(grid[0] * grid[1], 2)
        _forward[grid](
            image, photo, weight, maps, totals, height, width, hidden_at,
            HAS_WEIGHT=weight is not None, WITH_MAPS=with_maps, ROWS=ROWS, COLUMNS=COLUMNS, **OPTIONS,
        )  # fmt: skip
        num_windows = (height - border) * (width - 3 * border)
        ctx.factors = (weights[0] / rendered.numel(), weights[1] / num_windows)
        ctx.hidden_at, ctx.grid = hidden_at, grid
        if with_maps:
            ctx.save_for_backward(image, photo, weight, maps)
        differences, similarities = totals.sum(dim=0, dtype=torch.float64).unbind()
        return (differences * ctx.factors[0] + similarities * ctx.factors[1]).to(rendered.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        image, photo, weight, maps = ctx.saved_tensors
        gradient = torch.empty_like(image)
        height, width = image.shape[0], 3 * image.shape[1]
        _backward[ctx.grid](
            image, photo, weight, maps, grad_outputs[0].contiguous(), gradient, height, width, ctx.hidden_at,
            *ctx.factors, HAS_WEIGHT=weight is not None, ROWS=ROWS, COLUMNS=COLUMNS, **OPTIONS,
        )  # fmt: skip
        return gradient, None, None, None, None
