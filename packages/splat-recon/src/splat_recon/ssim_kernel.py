"""L1 and SSIM on a CPU: values and gradient in one pass of compiled, separable 11-tap filters.

Rows of an interleaved HWC image are contiguous, and a horizontal neighbor lies three floats away, so both filter
directions run over long rows, sixteen values at a time. Only the last rows of every intermediate image exist, in rings
of sixteen: they stay in the processor's cache. The value of SSIM is that of the usual "valid" one: Gaussian window of
11 pixels with standard deviation 1.5, over the pixels whose window lies in the image.
"""

import numpy as np
from numba import njit

from image_metrics.similarity import C1, C2, SIGMA, WINDOW
from splat_render.cpu.lanes import WIDTH, everywhere, fma, load, magnitude, select, store, total_of

GRAY = 0.5
"""What stands in both images where a pixel does not count."""


def window_weights() -> np.ndarray:
    """The one-dimensional window, float32, summing to one."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    return (weights / weights.sum()).astype(np.float32)


F = np.float32
U = np.uint64
_W = window_weights()
# The window is symmetric: six numbers hold it. Globals become constants in the compiled code.
_W0, _W1, _W2, _W3, _W4, _W5 = (F(value) for value in _W[: WINDOW // 2 + 1])
_C1, _C2 = F(C1), F(C2)
_ZERO, _ONE, _TWO, _GRAY = F(0), F(1), F(2), F(GRAY)

_BORDER = WINDOW - 1
_NEIGHBORS = tuple(U(3 * tap) for tap in range(WINDOW))
"""Where the pixels under a window lie in an interleaved row, from its first on."""
_LANES = U(WIDTH)
_RING = 16
"""Rows in a ring: at least the window's, and a power of two."""
_BEFORE = U(32)
"""Zeros before the first derivative of a row; its ten left neighbors are 30 values."""
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(forceinline=True, **_OPTIONS)
def _filtered(buffer, at, steps):
    """The window's weighted sum of sixteen values at once; `steps` are the offsets of its taps."""
    total = load(buffer, at + steps[5]) * _W5
    total = fma(load(buffer, at + steps[4]) + load(buffer, at + steps[6]), _W4, total)
    total = fma(load(buffer, at + steps[3]) + load(buffer, at + steps[7]), _W3, total)
    total = fma(load(buffer, at + steps[2]) + load(buffer, at + steps[8]), _W2, total)
    total = fma(load(buffer, at + steps[1]) + load(buffer, at + steps[9]), _W1, total)
    return fma(load(buffer, at + steps[0]) + load(buffer, at + steps[10]), _W0, total)


@njit(forceinline=True, **_OPTIONS)
def _ring_rows(last, stride):
    """Offsets of the eleven ring rows that end with image row `last`, from the first on."""
    first = last - _BORDER
    return (
        U((first + 0) % _RING) * stride,
        U((first + 1) % _RING) * stride,
        U((first + 2) % _RING) * stride,
        U((first + 3) % _RING) * stride,
        U((first + 4) % _RING) * stride,
        U((first + 5) % _RING) * stride,
        U((first + 6) % _RING) * stride,
        U((first + 7) % _RING) * stride,
        U((first + 8) % _RING) * stride,
        U((first + 9) % _RING) * stride,
        U((first + 10) % _RING) * stride,
    )


@njit(forceinline=True, **_OPTIONS)
def _spread(pixel_weight, y, first, count, row):
    """Put the weights of `count` pixels of row `y`, from the column `first` on, at the row's beginning, thrice each."""
    for x in range(count):
        for channel in range(3):
            row[3 * x + channel] = pixel_weight[y, first + x]


@njit(forceinline=True, **_OPTIONS)
def _take_row(y, image, target, rings, stride, weight_row, hidden_at):
    """Put an image row and its products with the photo's into the rings; both are gray where the weight says so.

    Returns the sum of the weighted absolute differences.
    """
    row = U(y % _RING) * stride
    for x in range(U(image.shape[1])):
        rings[0, row + x] = image[y, x]
        rings[1, row + x] = target[y, x]
    total = everywhere(_ZERO)
    for x in range(U(0), stride, _LANES):
        at = row + x
        weight = load(weight_row, x)
        shown = weight > hidden_at
        a, b = select(shown, load(rings[0], at), _GRAY), select(shown, load(rings[1], at), _GRAY)
        store(rings[0], at, a)
        store(rings[1], at, b)
        store(rings[2], at, fma(a, a, b * b))
        store(rings[3], at, a * b)
        total = fma(magnitude(a - b), weight, total)
    return total


@njit(forceinline=True, **_OPTIONS)
def _similarity(ma, mb, squares, product, weight):
    """SSIM times `weight`, and its derivatives by the filtered a, a*a and a*b."""
    both = ma * mb
    means = fma(ma, ma, mb * mb)
    below_luminance, below_contrast = means + _C1, squares - means + _C2
    luminance = fma(both, _TWO, _C1)
    contrast = fma(product - both, _TWO, _C2)
    scale = everywhere(_ONE) / (below_luminance * below_contrast)
    ssim = luminance * contrast * scale
    by_luminance, by_contrast = ssim * scale * below_contrast, ssim * scale * below_luminance
    d_ab = luminance * scale * weight * _TWO
    d_mu = (mb * (contrast - luminance) * scale - ma * (by_luminance - by_contrast)) * weight * _TWO
    return ssim * weight, d_mu, _ZERO - by_contrast * weight, d_ab


@njit(forceinline=True, **_OPTIONS)
def _compare_windows(y, rings, stride, columns, weight_row, maps, wide):
    """SSIM of the windows whose last row is `y`; derivatives go to the rings of maps. Returns the weighted sum."""
    rows = _ring_rows(y, stride)
    for at in range(U(0), stride, _LANES):
        for plane in range(4):
            store(columns[plane], at, _filtered(rings[plane], at, rows))
    total = everywhere(_ZERO)
    row = U(y % _RING) * wide + _BEFORE
    for at in range(U(0), stride, _LANES):
        value, d_mu, d_aa, d_ab = _similarity(
            _filtered(columns[0], at, _NEIGHBORS),
            _filtered(columns[1], at, _NEIGHBORS),
            _filtered(columns[2], at, _NEIGHBORS),
            _filtered(columns[3], at, _NEIGHBORS),
            load(weight_row, at),
        )
        total = total + value
        store(maps[0], row + at, d_mu)
        store(maps[1], row + at, d_aa)
        store(maps[2], row + at, d_ab)
    return total


@njit(forceinline=True, **_OPTIONS)
def _gradient_row(y, rings, stride, columns, weight_row, maps, wide, ssim_factor, l1_factor, hidden_at, row):
    """The gradient of one image row, from the windows that it lies in: those that end with `y` to `y` + 10."""
    rows = _ring_rows(y + _BORDER, wide)
    for at in range(U(0), wide, _LANES):
        for plane in range(3):
            store(columns[plane], at, _filtered(maps[plane], at, rows))
    place = U(y % _RING) * stride
    shift = _BEFORE - _NEIGHBORS[WINDOW - 1]
    for at in range(U(0), stride, _LANES):
        a, b, weight = load(rings[0], place + at), load(rings[1], place + at), load(weight_row, at)
        by_ssim = _filtered(columns[0], at + shift, _NEIGHBORS)
        by_ssim = fma(_filtered(columns[1], at + shift, _NEIGHBORS), a * _TWO, by_ssim)
        by_ssim = fma(_filtered(columns[2], at + shift, _NEIGHBORS), b, by_ssim)
        sign = select(a > b, l1_factor, select(a < b, _ZERO - l1_factor, _ZERO))
        store(row, at, select(weight > hidden_at, fma(by_ssim, ssim_factor, sign * weight), _ZERO))


@njit(**_OPTIONS)
def compare_rows(start, stop, image, target, pixel_weight, l1_factor, ssim_factor, hidden_at, totals, gradient):
    """Compare the rows `start` to `stop` of an image with a photo, and write the gradient of what they add to a loss.

    Each row is computed in the same way whatever the range, so that results do not depend on how rows are shared out.

    Args:
        stop: Past-last row.
        image: Rows of an interleaved image, [h, 3 w], in [0, 1].
        pixel_weight: Weight of each pixel, [h, w]; None means 1.
        l1_factor: What the sum of the weighted absolute differences counts in the loss whose gradient is wanted.
        ssim_factor: The same for the sum of SSIM times the weight of the window's center.
        hidden_at: Pixels of this weight or less are gray in both images, and have no gradient.
        totals: Receives each row's two sums, [h, 2]; a window belongs to its last row.
        gradient: Receives the gradient with respect to the image, or None.
    """
    height, width = image.shape
    stride = (U(width) + _LANES - U(1)) // _LANES * _LANES
    wide = stride + U(4) * _LANES
    rings, maps = np.zeros((4, _RING * stride), np.float32), np.zeros((3, _RING * wide), np.float32)
    columns = np.zeros((4, wide), np.float32)
    weight_row, window_row, row = (
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.empty(stride, np.float32),
    )
    weight_row[:width] = _ONE
    window_row[: width - 3 * _BORDER] = _ONE
    for y in range(start - _BORDER, stop + _BORDER):
        if 0 <= y < height:
            if pixel_weight is not None:
                _spread(pixel_weight, y, 0, width // 3, weight_row)
            differences = _take_row(y, image, target, rings, stride, weight_row, hidden_at)
            if start <= y < stop:
                totals[y, 0] = total_of(differences)
        if y < start:
            continue
        if _BORDER <= y < height:
            if pixel_weight is not None:
                half = _BORDER // 2
                _spread(pixel_weight, y - half, half, width // 3 - _BORDER, window_row)
            similarities = _compare_windows(y, rings, stride, columns, window_row, maps, wide)
            if y < stop:
                totals[y, 1] = total_of(similarities)
        else:
            maps[:, U(y % _RING) * wide : U(y % _RING + 1) * wide] = _ZERO
            if y < stop:
                totals[y, 1] = 0.0
        if gradient is not None and y - _BORDER >= start:
            if pixel_weight is not None:
                _spread(pixel_weight, y - _BORDER, 0, width // 3, weight_row)
            _gradient_row(
                y - _BORDER, rings, stride, columns, weight_row, maps, wide, ssim_factor, l1_factor, hidden_at, row
            )
            for x in range(width):
                gradient[y - _BORDER, x] = row[x]


def check_size(height: int, width: int) -> None:
    """Raise ValueError when an image is smaller than the window."""
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {width}x{height}")
