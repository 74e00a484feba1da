"""SSIM on a CPU: value and gradient in one pass of compiled, separable 11-tap filters.

Rows of an interleaved HWC image are contiguous, and a horizontal neighbour lies three floats away, so both filter
directions run over long contiguous rows that the compiler vectorizes. The value is that of the usual "valid" SSIM:
Gaussian window of 11 pixels with standard deviation 1.5, averaged over the pixels whose window lies in the image.
"""

import numpy as np
from numba import njit

WINDOW = 11
"""Pixels across the window."""

SIGMA = 1.5
"""Standard deviation of the window in pixels."""

C1 = 0.01**2
"""Stabilizer of the luminance term for values in [0, 1]."""

C2 = 0.03**2
"""Stabilizer of the contrast term for values in [0, 1]."""


def window_weights() -> np.ndarray:
    """The one-dimensional window, float32, summing to one."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return (weights / weights.sum()).astype(np.float32)


_W = window_weights()
# The window is symmetric: six numbers hold it. Globals become constants in the compiled code.
_W0, _W1, _W2, _W3, _W4, _W5 = (np.float32(value) for value in _W[: WINDOW // 2 + 1])
_C1, _C2 = np.float32(C1), np.float32(C2)
_TWO, _ONE = np.float32(2.0), np.float32(1.0)

_OPTIONS = {"cache": True, "nogil": True, "fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy"}


@njit(inline="always")
def _taps(a, b, c, d, e, f, g, h, i, j, k):
    return _W0 * (a + k) + _W1 * (b + j) + _W2 * (c + i) + _W3 * (d + h) + _W4 * (e + g) + _W5 * f


@njit(**_OPTIONS)
def _filter_rows(source, top, out):
    """Vertical filter: `out` is the weighted sum of the 11 rows of `source` that start at `top`."""
    r0, r1, r2, r3, r4, r5 = (
        source[top],
        source[top + 1],
        source[top + 2],
        source[top + 3],
        source[top + 4],
        source[top + 5],
    )
    r6, r7, r8, r9, r10 = (source[top + 6], source[top + 7], source[top + 8], source[top + 9], source[top + 10])
    for x in range(out.shape[0]):
        out[x] = _taps(r0[x], r1[x], r2[x], r3[x], r4[x], r5[x], r6[x], r7[x], r8[x], r9[x], r10[x])


@njit(**_OPTIONS)
def _filter_columns(row, out):
    """Horizontal filter of one interleaved row; `out` has the 30 values of ten pixels less."""
    for x in range(out.shape[0]):
        out[x] = _taps(
            row[x], row[x + 3], row[x + 6], row[x + 9], row[x + 12], row[x + 15],
            row[x + 18], row[x + 21], row[x + 24], row[x + 27], row[x + 30],
        )  # fmt: skip


@njit(**_OPTIONS)
def _moments(a, b, aa_bb, ab):
    for x in range(a.shape[0]):
        aa_bb[0, x] = a[x] * a[x]
        aa_bb[1, x] = b[x] * b[x]
        ab[x] = a[x] * b[x]


@njit(**_OPTIONS)
def _similarity(mu_a, mu_b, e_aa, e_bb, e_ab, weight, value, d_mu, d_aa, d_ab):
    """SSIM of one row times `weight`, and its derivatives by the filtered a, a*a and a*b."""
    for x in range(value.shape[0]):
        ma, mb = mu_a[x], mu_b[x]
        luminance = _TWO * ma * mb + _C1
        contrast = _TWO * (e_ab[x] - ma * mb) + _C2
        below_luminance = ma * ma + mb * mb + _C1
        below_contrast = (e_aa[x] - ma * ma) + (e_bb[x] - mb * mb) + _C2
        scale = _ONE / (below_luminance * below_contrast)
        ssim = luminance * contrast * scale
        by_luminance = ssim / below_luminance
        by_contrast = ssim / below_contrast
        w = weight[x]
        value[x] = w * ssim
        d_aa[x] = -w * by_contrast
        d_ab[x] = w * _TWO * luminance * scale
        d_mu[x] = w * _TWO * (mb * (contrast - luminance) * scale - ma * (by_luminance - by_contrast))


@njit(**_OPTIONS)
def ssim_forward(image, target, weight, d_mu, d_aa, d_ab):
    """Sum of the weighted SSIM values; derivatives go to the maps with ten empty pixels on every side.

    Args:
        image: Rows of an interleaved image, [h, 3 w], in [0, 1].
        target: What it is compared with.
        weight: Weight of each value whose window lies in the image, [h - 10, 3 (w - 10)].
        d_mu: Receives the derivative by the filtered image, [h + 10, 3 (w + 10)]; its border must be zero.
        d_aa: The same by the filtered square.
        d_ab: The same by the filtered product.
    """
    height, width = image.shape
    valid_height, valid_width = weight.shape
    squares = np.empty((height, 2, width), dtype=np.float32)
    products = np.empty((height, width), dtype=np.float32)
    for y in range(height):
        _moments(image[y], target[y], squares[y], products[y])
    column = np.empty(width, dtype=np.float32)
    rows = np.empty((5, valid_width), dtype=np.float32)
    value = np.empty(valid_width, dtype=np.float32)
    total = 0.0
    for y in range(valid_height):
        _filter_rows(image, y, column)
        _filter_columns(column, rows[0])
        _filter_rows(target, y, column)
        _filter_columns(column, rows[1])
        _filter_rows(squares[:, 0], y, column)
        _filter_columns(column, rows[2])
        _filter_rows(squares[:, 1], y, column)
        _filter_columns(column, rows[3])
        _filter_rows(products, y, column)
        _filter_columns(column, rows[4])
        _similarity(
            rows[0], rows[1], rows[2], rows[3], rows[4], weight[y], value,
            d_mu[y + 10, 30 : 30 + valid_width],
            d_aa[y + 10, 30 : 30 + valid_width],
            d_ab[y + 10, 30 : 30 + valid_width],
        )  # fmt: skip
        row_total = np.float32(0.0)
        for x in range(valid_width):
            row_total += value[x]
        total += row_total
    return total


@njit(**_OPTIONS)
def ssim_backward(image, target, d_mu, d_aa, d_ab, factor, gradient):
    """Gradient of `factor` times the sum by `image`: the derivative maps filtered back onto the pixels."""
    height, width = image.shape
    padded = d_mu.shape[1]
    column = np.empty(padded, dtype=np.float32)
    rows = np.empty((3, width), dtype=np.float32)
    for y in range(height):
        _filter_rows(d_mu, y, column)
        _filter_columns(column, rows[0])
        _filter_rows(d_aa, y, column)
        _filter_columns(column, rows[1])
        _filter_rows(d_ab, y, column)
        _filter_columns(column, rows[2])
        for x in range(width):
            gradient[y, x] = factor * (rows[0, x] + _TWO * image[y, x] * rows[1, x] + target[y, x] * rows[2, x])


def check_size(height: int, width: int) -> None:
    """Raise ValueError when an image is smaller than the window."""
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {width}x{height}")
