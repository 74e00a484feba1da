"""The compiled part of PatchMatch stereo: one photo's sweeps, and the agreement of its depths with others.

A pixel's state is a plane: inverse depth and its gradient along x and y, as planes are affine in inverse depth. A point
of a photo at (u, v) with inverse depth w is seen in another one at A (u, v, 1) + b w, up to scale. Photos lie one after
the other in one flat array, since they may differ in size.

Random numbers are a function of seed, sweep and pixel: no state is shared between threads.

Two things make a patch's cost three times cheaper. The four gray values that a lookup between pixels needs are one
64-bit number (`patch_match._quads`), loaded at once, and patches are padded to whole vectors of the processor. And the
inner functions are inlined by LLVM: otherwise numba counts references to every array in every call, atomically.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

F = np.float32
OUTSIDE = F(2.0)
"""Cost of a patch of which more than a third lies outside of the other photo: worse than any match."""
FLAT = F(1e-5)
"""Variance below which a patch has no texture to compare."""
FLAT_COST = F(0.9)
MAX_ERROR_PX = 3.0
"""A larger error after projection there and back costs no more than this one."""
MIN_WEIGHT = F(0.02)
"""Pixels of a patch with a lower weight are left out."""
NUM_TRIALS = 4
LAST_ALIKE = F(1023)
"""Differences of gray values are looked up in a table of one more entry than this."""
TINY = 1e-6
LANES = 16
"""Patches are padded to a multiple of so many pixels, with some of weight 0."""
LOW16 = np.uint64(0xFFFF)
STEP = F(1 / 65535)
"""Gray values are kept in 16 bits."""
SAME = 1e-12
"""Inverse depths that differ by less, relatively, are one that was handed on, and rounded."""
ENDLESS = F(1e9)
"""More than any cost."""


@njit(cache=True, nogil=True, inline="always")
def _mixed(z):
    """The finalizer of splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True, inline="always")
def _uniform(key, index):
    """A number in [0, 1) for a key and an index."""
    z = _mixed(key + np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15))
    return (z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True, inline="always")
def _padded(num):
    """The next multiple of `LANES`."""
    return -(-num // LANES) * LANES


@njit(cache=True, fastmath=True, nogil=True)
def _gather_patch(ref, x, y, radius, stride, spatial, alike, dxs, dys, weights, values):
    """The pixels of a patch that count, their weights and their values less the center's; returns their number.

    After them comes the center with weight 0, up to a multiple of `LANES`.
    """
    height, width = ref.shape
    center = ref[y, x]
    n = 0
    k = 0
    for dy in range(-radius, radius + 1, stride):
        for dx in range(-radius, radius + 1, stride):
            xx = x + dx
            yy = y + dy
            if xx >= 0 and yy >= 0 and xx < width and yy < height:
                difference = ref[yy, xx] - center
                weight = spatial[k] * alike[np.uint32(abs(difference) * LAST_ALIKE)]
                if weight >= MIN_WEIGHT:
                    dxs[n] = dx
                    dys[n] = dy
                    weights[n] = weight
                    values[n] = difference
                    n += 1
            k += 1
    for k in range(n, _padded(n)):
        dxs[k], dys[k], weights[k], values[k] = F(0), F(0), F(0), F(0)
    return n


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy", forceinline=True)
def _patch_cost(flat, offset, height, width, A, b, j, u, v, w, gx, gy, center, n, dxs, dys, weights, values):
    """1 - weighted correlation of a slanted patch with what another photo shows in its place, in [0, 2]."""
    p0 = F(A[j, 0, 0] * u + A[j, 0, 1] * v + A[j, 0, 2] + b[j, 0] * w)
    q0 = F(A[j, 1, 0] * u + A[j, 1, 1] * v + A[j, 1, 2] + b[j, 1] * w)
    r0 = F(A[j, 2, 0] * u + A[j, 2, 1] * v + A[j, 2, 2] + b[j, 2] * w)
    px = F(A[j, 0, 0] + b[j, 0] * gx)
    py = F(A[j, 0, 1] + b[j, 0] * gy)
    qx = F(A[j, 1, 0] + b[j, 1] * gx)
    qy = F(A[j, 1, 1] + b[j, 1] * gy)
    rx = F(A[j, 2, 0] + b[j, 2] * gx)
    ry = F(A[j, 2, 1] + b[j, 2] * gy)
    right = F(width - 1.001)
    bottom = F(height - 1.001)
    sum_w = F(0)
    sum_r = F(0)
    sum_s = F(0)
    sum_rr = F(0)
    sum_ss = F(0)
    sum_rs = F(0)
    num_inside = F(0)
    # Unsigned: numba then leaves out its look at negative indices.
    start, row = np.uint32(offset), np.uint32(width)
    for k in range(_padded(n)):
        dx = dxs[k]
        dy = dys[k]
        depth = r0 + rx * dx + ry * dy
        scale = F(1) / max(depth, F(TINY))
        sx = (p0 + px * dx + py * dy) * scale - F(0.5)
        sy = (q0 + qx * dx + qy * dy) * scale - F(0.5)
        inside = F(1) if (depth > F(TINY)) & (sx >= 0) & (sy >= 0) & (sx < right) & (sy < bottom) else F(0)
        sx = min(max(sx, F(0)), right)
        sy = min(max(sy, F(0)), bottom)
        ix = np.int32(sx)
        iy = np.int32(sy)
        fx = sx - F(ix)
        fy = sy - F(iy)
        quad = flat[start + np.uint32(iy * row + ix)]
        s00 = F(np.int32(quad & LOW16))
        s01 = F(np.int32((quad >> np.uint64(16)) & LOW16))
        s10 = F(np.int32((quad >> np.uint64(32)) & LOW16))
        s11 = F(np.int32(quad >> np.uint64(48)))
        top = s00 + (s01 - s00) * fx
        low = s10 + (s11 - s10) * fx
        s = (top + (low - top) * fy) * STEP - center
        r = values[k]
        weight = weights[k] * inside
        num_inside += inside if weights[k] > 0 else F(0)
        sum_w += weight
        sum_r += weight * r
        sum_s += weight * s
        sum_rr += weight * r * r
        sum_ss += weight * s * s
        sum_rs += weight * r * s
    if (n - num_inside) * 3 > n or sum_w <= 0:
        return OUTSIDE
    scale = F(1) / sum_w
    mean_r = sum_r * scale
    mean_s = sum_s * scale
    var_r = sum_rr * scale - mean_r * mean_r
    var_s = sum_ss * scale - mean_s * mean_s
    if var_r < FLAT or var_s < FLAT:
        return FLAT_COST if var_r < FLAT and var_s < FLAT else F(1)
    correlation = (sum_rs * scale - mean_r * mean_s) / math.sqrt(var_r * var_s)
    return F(1) - min(max(F(correlation), F(-1)), F(1))


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy", forceinline=True)
def _round_trip(u, v, w, A, b, A_back, b_back, j, inverse, offset, height, width):
    """Error in pixels after projection into another photo and back by that photo's depth, and the depths' ratio."""
    z = A[j, 2, 0] * u + A[j, 2, 1] * v + A[j, 2, 2] + b[j, 2] * w
    scale = 1.0 / max(z, TINY)
    x = (A[j, 0, 0] * u + A[j, 0, 1] * v + A[j, 0, 2] + b[j, 0] * w) * scale
    y = (A[j, 1, 0] * u + A[j, 1, 1] * v + A[j, 1, 2] + b[j, 1] * w) * scale
    inside = (z > TINY) & (w > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    column = int(min(max(x, 0.0), width - 1.0))
    row = int(min(max(y, 0.0), height - 1.0))
    other = inverse[np.uint32(offset + row * width + column)]
    z_back = A_back[j, 2, 0] * x + A_back[j, 2, 1] * y + A_back[j, 2, 2] + b_back[j, 2] * other
    back = 1.0 / max(z_back, TINY)
    x_back = (A_back[j, 0, 0] * x + A_back[j, 0, 1] * y + A_back[j, 0, 2] + b_back[j, 0] * other) * back
    y_back = (A_back[j, 1, 0] * x + A_back[j, 1, 1] * y + A_back[j, 1, 2] + b_back[j, 1] * other) * back
    error = math.sqrt((x_back - u) * (x_back - u) + (y_back - v) * (y_back - v))
    known = inside & (other > 0) & (z_back > TINY)
    return (min(error, MAX_ERROR_PX) if known else MAX_ERROR_PX), (z / w * other if known else 0.0)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _mean_of_best(costs, num, num_best):
    """The mean of the least costs; puts those first."""
    best = min(num_best, num)
    total = F(0)
    for a in range(best):
        least = a
        for k in range(a + 1, num):
            if costs[k] < costs[least]:
                least = k
        costs[a], costs[least] = costs[least], costs[a]
        total += costs[a]
    return total / F(best)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy", forceinline=True)
def _plane_cost(
    flat, inverse, layout, A, b, A_back, b_back, geometric_weight, chosen, num_chosen, num_best,
    u, v, w, gx, gy, center, n, dxs, dys, weights, values, by_source, sorted_costs, limit,
):  # fmt: skip
    """The mean cost of a plane over the chosen sources in which it fits best; `by_source` gets the cost of each.

    Where all chosen ones count, it stops as soon as the mean reaches `limit`.
    """
    total, most = F(0), limit * F(num_best) if num_chosen <= num_best else ENDLESS
    for k in range(num_chosen):
        j = chosen[k]
        offset, height, width = layout[j, 0], layout[j, 1], layout[j, 2]
        cost = _patch_cost(
            flat, offset, height, width, A, b, j, u, v, w, gx, gy, center, n, dxs, dys, weights, values
        )  # fmt: skip
        if geometric_weight > 0:
            error, _ = _round_trip(u, v, w, A, b, A_back, b_back, j, inverse, offset, height, width)
            cost += F(geometric_weight * error)
        by_source[k] = cost
        sorted_costs[k] = cost
        total += cost
        if total >= most:
            return ENDLESS
    return _mean_of_best(sorted_costs, num_chosen, num_best)


@njit(cache=True, nogil=True)
def sweep_photo(
    ref, flat, inverse, layout, A, b, A_back, b_back, geometric_weight, num_kept, num_best,
    planes, cost, nearest, farthest, max_slope, num_sweeps, anywhere, radius, stride, spatial, alike, seed,
):  # fmt: skip
    """Improve a photo's planes in place: each pixel tries its neighbors' planes and four random changes of its own.

    `layout` holds offset, height and width of every source in `flat` (gray values) and `inverse` (inverse depths).
    Where `num_kept` is less than the number of sources, a pixel is compared with those only in which its first plane
    fits best. `nearest` and `farthest` are the largest and the least inverse depth; one of the random
    changes is a plane between them, where `anywhere` is set.
    """
    height, width = ref.shape
    num_sources = layout.shape[0]
    size = _padded(((2 * radius) // stride + 1) ** 2)
    dxs, dys = np.empty(size, np.float32), np.empty(size, np.float32)
    weights, values = np.empty(size, np.float32), np.empty(size, np.float32)
    costs = np.empty(num_sources, np.float32)
    every = np.arange(num_sources)
    own = np.empty(num_kept, np.int64)
    kept = np.empty((height, width, num_kept), np.int64)
    by_source = np.empty(num_sources, np.float32)
    for y in range(height):
        for x in range(width):
            n = _gather_patch(ref, x, y, radius, stride, spatial, alike, dxs, dys, weights, values)
            w, gx, gy = planes[y, x, 0], planes[y, x, 1], planes[y, x, 2]
            cost[y, x] = _plane_cost(
                flat, inverse, layout, A, b, A_back, b_back, geometric_weight, every, num_sources, num_best,
                x + 0.5, y + 0.5, w, gx, gy, ref[y, x], n, dxs, dys, weights, values, by_source, costs, ENDLESS,
            )  # fmt: skip
            for k in range(num_kept):
                least = 0
                for j in range(num_sources):
                    if by_source[j] < by_source[least]:
                        least = j
                kept[y, x, k] = least
                by_source[least] = ENDLESS
    for sweep in range(num_sweeps):
        step = 1 if sweep % 2 == 0 else -1
        reach = 0.5**sweep
        for row in range(height):
            y = row if step > 0 else height - 1 - row
            for column in range(width):
                x = column if step > 0 else width - 1 - column
                n = _gather_patch(ref, x, y, radius, stride, spatial, alike, dxs, dys, weights, values)
                best_w, best_gx, best_gy = planes[y, x, 0], planes[y, x, 1], planes[y, x, 2]
                best = cost[y, x]
                for k in range(num_kept):
                    own[k] = kept[y, x, k]
                key = _mixed(
                    np.uint64(seed) * np.uint64(0xD6E8FEB86659FD93) + np.uint64((sweep * height + y) * width + x)
                )
                for attempt in range(2 + NUM_TRIALS):
                    if attempt < 2:
                        xx = x - step if attempt == 0 else x
                        yy = y if attempt == 0 else y - step
                        if xx < 0 or yy < 0 or xx >= width or yy >= height:
                            continue
                        gx, gy = planes[yy, xx, 1], planes[yy, xx, 2]
                        w = planes[yy, xx, 0] + gx * (x - xx) + gy * (y - yy)
                        if gx == best_gx and gy == best_gy and abs(w - best_w) <= SAME * w:
                            continue  # It came from this plane.
                    elif attempt == 2:
                        if not anywhere:
                            continue
                        w = farthest + (nearest - farthest) * _uniform(key, 0)
                        gx = (2 * _uniform(key, 1) - 1) * max_slope * w * 0.5
                        gy = (2 * _uniform(key, 2) - 1) * max_slope * w * 0.5
                    elif attempt == 3:
                        w = best_w + (nearest - farthest) * 0.25 * reach * (2 * _uniform(key, 3) - 1)
                        gx, gy = best_gx, best_gy
                    elif attempt == 4:
                        w = best_w
                        gx = best_gx + (2 * _uniform(key, 4) - 1) * max_slope * w * reach
                        gy = best_gy + (2 * _uniform(key, 5) - 1) * max_slope * w * reach
                    else:
                        w = best_w * (1 + 0.02 * (2 * _uniform(key, 6) - 1))
                        gx = best_gx + (2 * _uniform(key, 7) - 1) * max_slope * w * reach * 0.25
                        gy = best_gy + (2 * _uniform(key, 8) - 1) * max_slope * w * reach * 0.25
                    if w < farthest or w > nearest or abs(gx) > max_slope * w or abs(gy) > max_slope * w:
                        continue
                    new = _plane_cost(
                        flat, inverse, layout, A, b, A_back, b_back, geometric_weight, own, num_kept, num_best,
                        x + 0.5, y + 0.5, w, gx, gy, ref[y, x], n, dxs, dys, weights, values, by_source, costs, best,
                    )  # fmt: skip
                    if new < best:
                        best, best_w, best_gx, best_gy = new, w, gx, gy
                planes[y, x, 0], planes[y, x, 1], planes[y, x, 2] = best_w, best_gx, best_gy
                cost[y, x] = best


@njit(cache=True, nogil=True)
def count_agreeing(own, inverse, layout, A, b, A_back, b_back, max_error_px, max_depth_error):
    """How many other photos' depths agree with each pixel of a photo's inverse depths `own`."""
    height, width = own.shape
    count = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            for j in range(layout.shape[0]):
                error, ratio = _round_trip(
                    x + 0.5, y + 0.5, own[y, x], A, b, A_back, b_back, j,
                    inverse, layout[j, 0], layout[j, 1], layout[j, 2],
                )  # fmt: skip
                if error < max_error_px and abs(ratio - 1) < max_depth_error:
                    count[y, x] += 1
    return count


@njit(cache=True, nogil=True)
def without_small_components(inverse, mask, max_step, min_size):
    """The mask without components of fewer pixels; neighbors are connected where their inverse depths are close."""
    height, width = inverse.shape
    seen = np.zeros((height, width), np.bool_)
    result = mask.copy()
    ys, xs = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    for y_first in range(height):
        for x_first in range(width):
            if seen[y_first, x_first] or not mask[y_first, x_first]:
                continue
            seen[y_first, x_first] = True
            ys[0], xs[0] = y_first, x_first
            size, at = 1, 0
            while at < size:
                y, x = ys[at], xs[at]
                at += 1
                for k in range(4):
                    yy = y + (1 if k == 0 else -1 if k == 1 else 0)
                    xx = x + (1 if k == 2 else -1 if k == 3 else 0)
                    if yy < 0 or xx < 0 or yy >= height or xx >= width or seen[yy, xx] or not mask[yy, xx]:
                        continue
                    if abs(inverse[yy, xx] - inverse[y, x]) < max_step * inverse[y, x]:
                        seen[yy, xx] = True
                        ys[size], xs[size] = yy, xx
                        size += 1
            if size < min_size:
                for k in range(size):
                    result[ys[k], xs[k]] = False
    return result
