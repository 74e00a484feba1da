"""Front-to-back blending of splats, tile by tile, as a numba kernel and its backward.

A tile's pixels lie in one flat float32 buffer, plane after plane of 16 x 16 values: constant distances from one base
let LLVM see that nothing overlaps, and each row of 16 pixels becomes straight vector code. For that the row loops
are free of branches, indices are unsigned (numba would otherwise test for negative ones), and exp is a polynomial
that holds on the range in which a pixel can be reached at all.
"""

import math

import numpy as np
from numba import njit

from splat_recon.render.cpu_harmonics import FLAGS
from splat_recon.render.cpu_layout import (
    BLUE,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    DEPTH,
    EXTENT_Y,
    GREEN,
    M_00,
    M_01,
    M_02,
    M_10,
    M_11,
    M_20,
    M_BLUE,
    M_DEPTH,
    M_GREEN,
    M_RED,
    OPACITY,
    RED,
    TILE,
    X,
    Y,
)

F = np.float32
U = np.uint64

ZERO = F(0)
HALF = F(0.5)
ONE = F(1)
TWO = F(2)
MIN_ALPHA = F(1 / 255)
MIN_TRANSMITTANCE = F(1e-4)
"""A pixel is done when the next splat would leave no more light than this; that splat is not drawn."""
MIN_WEIGHT = F(1e-10)
MAX_EXPONENT = F(5.6)
"""exp(-5.6) is below 1/255: what lies farther out is invisible, and the polynomial need not hold there."""
# exp(-s) = p(s)^8 on [0, 5.6], relative error 1.3e-6 in float32; fitted for least largest relative error.
E0, E1, E2 = F(1.0), F(-0.12499997019767761), F(0.007812413387000561)
E3, E4 = F(-0.0003254314069636166), F(1.0127823770744726e-05)
E5, E6 = F(-2.4260549480459304e-07), F(3.7193039759131352e-09)

SIDE = U(TILE)
PLANE = U(TILE * TILE)
U0 = U(0)
U1 = U(1)
SUM_FLAGS = {*FLAGS, "reassoc"}
"""A fixed number of columns may be summed in the order that suits vector units; it is the same at every call."""
CHECK_EVERY = 16
"""Splats between two looks at whether a tile's rows still let light through."""

# Planes of the forward buffer.
P_LIGHT = U(0) * PLANE
P_RED = U(1) * PLANE
P_GREEN = U(2) * PLANE
P_BLUE = U(3) * PLANE
P_DEPTH = U(4) * PLANE
P_LAST = U(5) * PLANE
NUM_FORWARD = 6 * TILE * TILE

# Planes of the backward buffer, then rows that sum over the columns of a tile.
P_BEHIND = U(1) * PLANE
P_V_RED = U(2) * PLANE
P_V_GREEN = U(3) * PLANE
P_V_BLUE = U(4) * PLANE
P_V_DEPTH = U(5) * PLANE
P_B_LAST = U(6) * PLANE
NUM_BACKWARD = 7 * TILE * TILE
S_0 = U(0)
S_1 = S_0 + SIDE
S_2 = S_1 + SIDE
S_RED = S_2 + SIDE
S_GREEN = S_RED + SIDE
S_BLUE = S_GREEN + SIDE
S_DEPTH = S_BLUE + SIDE
NUM_SUMS = 7 * TILE


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def row_range(y, extent):
    """First and past-last row of the tile that a splat at height y (in the tile's rows) can reach."""
    first = max(math.ceil(y - extent), ZERO)
    last = min(math.floor(y + extent), F(TILE - 1))
    if last < first:
        return U0, U0
    return U(first), U(last) + U1


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def exp_minus(s):
    """exp(-s) for s in [0, MAX_EXPONENT], the same in both directions: a polynomial of s / 8, three times squared."""
    e = s if s < MAX_EXPONENT else MAX_EXPONENT
    e = E0 + e * (E1 + e * (E2 + e * (E3 + e * (E4 + e * (E5 + e * E6)))))
    e = e * e
    e = e * e
    e = e * e
    return e


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def blend_row(buffer, row, x, y, half_xx, conic_xy, half_yy, opacity, red, green, blue, depth, index, max_alpha):
    """Blend one splat into one row of the tile."""
    dy = y - F(row)
    linear = conic_xy * dy
    constant = half_yy * dy * dy
    base = row * SIDE
    for column in range(SIDE):
        at = base + column
        dx = x - F(column)
        s = (half_xx * dx + linear) * dx + constant
        e = exp_minus(s)
        alpha = opacity * e
        alpha = alpha if alpha < max_alpha else max_alpha
        light = buffer[P_LIGHT + at]
        left = light - light * alpha
        seen = (alpha >= MIN_ALPHA) & (s >= ZERO)
        drawn = seen & (left > MIN_TRANSMITTANCE)
        weight = light * alpha if drawn else ZERO
        # A pixel that is done keeps its light with the sign turned, so that nothing passes the test again.
        stopped = -abs(light) if seen else light
        buffer[P_LIGHT + at] = left if drawn else stopped
        buffer[P_RED + at] += weight * red
        buffer[P_GREEN + at] += weight * green
        buffer[P_BLUE + at] += weight * blue
        buffer[P_DEPTH + at] += weight * depth
        buffer[P_LAST + at] = index if drawn else buffer[P_LAST + at]


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def live_rows(buffer, live):
    """Refresh which rows still let light through; returns how many do."""
    num_live = 0
    for row in range(SIDE):
        open_pixels = 0
        for column in range(SIDE):
            open_pixels += buffer[P_LIGHT + row * SIDE + column] > ZERO
        live[row] = open_pixels > 0
        num_live += open_pixels > 0
    return num_live


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def blend(
    worker, num_workers, tiles_x, tile_starts, ids, splats, background, max_alpha, rgb, alpha, depth, light, last
):
    """Blend every `num_workers`-th tile, beginning with number `worker`.

    Writes colour, alpha and expected depth of the image, and what the backward needs: the light left behind the last
    splat drawn, and that splat's place in the tile's list (-1: none).
    """
    height, width = light.shape
    buffer = np.empty(NUM_FORWARD, np.float32)
    live = np.empty(TILE, np.bool_)
    for tile in range(worker, tile_starts.shape[0] - 1, num_workers):
        top, left = TILE * (tile // tiles_x), TILE * (tile % tiles_x)
        origin_x, origin_y = F(left) + HALF, F(top) + HALF
        buffer[: int(P_LAST)] = ZERO
        buffer[: int(PLANE)] = ONE
        buffer[int(P_LAST) :] = F(-1)
        # Pixels beyond the image's edge never hold a tile or a row back.
        for row in range(TILE):
            for column in range(TILE):
                if top + row >= height or left + column >= width:
                    buffer[row * TILE + column] = -ONE
        live_rows(buffer, live)
        start = tile_starts[tile]
        for k in range(tile_starts[tile + 1] - start):
            if k % CHECK_EVERY == CHECK_EVERY - 1 and live_rows(buffer, live) == 0:
                break
            splat = splats[ids[start + k]]
            x, y = splat[X] - origin_x, splat[Y] - origin_y
            first, end = row_range(y, splat[EXTENT_Y])
            half_xx, conic_xy, half_yy = HALF * splat[CONIC_XX], splat[CONIC_XY], HALF * splat[CONIC_YY]
            for row in range(first, end):
                if live[row]:
                    blend_row(
                        buffer, row, x, y, half_xx, conic_xy, half_yy,
                        splat[OPACITY], splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH], F(k), max_alpha,
                    )  # fmt: skip
        for row in range(min(TILE, height - top)):
            for column in range(min(TILE, width - left)):
                at = U(row * TILE + column)
                i, j = top + row, left + column
                rest = abs(buffer[P_LIGHT + at])
                covered = ONE - rest
                rgb[i, j, 0] = buffer[P_RED + at] + rest * background[0]
                rgb[i, j, 1] = buffer[P_GREEN + at] + rest * background[1]
                rgb[i, j, 2] = buffer[P_BLUE + at] + rest * background[2]
                alpha[i, j] = covered
                depth[i, j] = buffer[P_DEPTH + at] / max(covered, MIN_WEIGHT)
                light[i, j] = rest
                last[i, j] = np.int32(buffer[P_LAST + at])


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def row_backward(
    buffer, sums, abs_sums, row, x, y, half_xx, conic_xy, half_yy, opacity, red, green, blue, depth, index, max_alpha
):
    """Step back over one splat in one row: restore the light before it, add to the column sums.

    `abs_sums` is None unless absolute gradients are wanted, and the compiler then leaves their lines out.
    """
    dy = y - F(row)
    linear = conic_xy * dy
    constant = half_yy * dy * dy
    base = row * SIDE
    for column in range(SIDE):
        at = base + column
        dx = x - F(column)
        s = (half_xx * dx + linear) * dx + constant
        e = exp_minus(s)
        raw = opacity * e
        alpha = raw if raw < max_alpha else max_alpha
        drawn = (alpha >= MIN_ALPHA) & (s >= ZERO) & (index <= buffer[P_B_LAST + at])
        alpha = alpha if drawn else ZERO
        inverse = ONE / (ONE - alpha)
        light = buffer[P_LIGHT + at] * inverse
        weight = light * alpha
        v_red, v_green = buffer[P_V_RED + at], buffer[P_V_GREEN + at]
        v_blue, v_depth = buffer[P_V_BLUE + at], buffer[P_V_DEPTH + at]
        behind = buffer[P_BEHIND + at]
        value = red * v_red + green * v_green + blue * v_blue + depth * v_depth
        v_alpha = light * value - behind * inverse
        v_exponent = -raw * v_alpha if drawn & (raw <= max_alpha) else ZERO
        buffer[P_LIGHT + at] = light
        buffer[P_BEHIND + at] = behind + weight * value
        if abs_sums is not None:
            abs_sums[column] += abs(v_exponent * (TWO * half_xx * dx + linear))
            abs_sums[SIDE + column] += abs(v_exponent * (conic_xy * dx + TWO * half_yy * dy))
        sums[S_0 + column] += v_exponent
        sums[S_1 + column] += v_exponent * dy
        sums[S_2 + column] += v_exponent * (dy * dy)
        sums[S_RED + column] += weight * v_red
        sums[S_GREEN + column] += weight * v_green
        sums[S_BLUE + column] += weight * v_blue
        sums[S_DEPTH + column] += weight * v_depth


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def load_gradients(
    buffer, row_deepest, top, left, background, alpha, depth, light, last, v_rgb, v_alpha, v_depth
):  # fmt: skip
    """Fill the planes of one tile with the image's gradients, and `row_deepest` with the last place drawn in each row.

    Where nothing is drawn that place is -1. Light that is left counts by what it lets through: the background, and
    1 - alpha. The expected depth is a ratio, so its gradient reaches the blended depth and alpha.
    """
    height, width = light.shape
    buffer[: int(P_B_LAST)] = ZERO
    buffer[int(P_B_LAST) :] = F(-1)
    row_deepest[:] = -1
    for row in range(min(TILE, height - top)):
        for column in range(min(TILE, width - left)):
            at = U(row * TILE + column)
            i, j = top + row, left + column
            buffer[P_LIGHT + at] = light[i, j]
            buffer[P_B_LAST + at] = F(last[i, j])
            row_deepest[row] = max(row_deepest[row], last[i, j])
            covered = alpha[i, j]
            weight_gradient = v_depth[i, j] / covered if covered > MIN_WEIGHT else ZERO
            buffer[P_V_RED + at] = v_rgb[i, j, 0]
            buffer[P_V_GREEN + at] = v_rgb[i, j, 1]
            buffer[P_V_BLUE + at] = v_rgb[i, j, 2]
            buffer[P_V_DEPTH + at] = weight_gradient
            through = background[0] * v_rgb[i, j, 0] + background[1] * v_rgb[i, j, 1] + background[2] * v_rgb[i, j, 2]
            v_light = through - v_alpha[i, j] + weight_gradient * depth[i, j]
            buffer[P_BEHIND + at] = light[i, j] * v_light


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=SUM_FLAGS)
def write_moments(sums, x, moments, slot):
    """Sum the column sums into one row of moments."""
    m_00 = m_10 = m_01 = m_20 = m_11 = m_02 = red = green = blue = depth = ZERO
    for column in range(SIDE):
        dx = x - F(column)
        order_0, order_1 = sums[S_0 + column], sums[S_1 + column]
        m_00 += order_0
        m_10 += dx * order_0
        m_01 += order_1
        m_20 += dx * dx * order_0
        m_11 += dx * order_1
        m_02 += sums[S_2 + column]
        red += sums[S_RED + column]
        green += sums[S_GREEN + column]
        blue += sums[S_BLUE + column]
        depth += sums[S_DEPTH + column]
    moments[slot, M_00] = m_00
    moments[slot, M_10] = m_10
    moments[slot, M_01] = m_01
    moments[slot, M_20] = m_20
    moments[slot, M_11] = m_11
    moments[slot, M_02] = m_02
    moments[slot, M_RED] = red
    moments[slot, M_GREEN] = green
    moments[slot, M_BLUE] = blue
    moments[slot, M_DEPTH] = depth


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def blend_backward(
    worker, num_workers, tiles_x, tile_starts, ids, slots, splats, background, max_alpha,
    alpha, depth, light, last, v_rgb, v_alpha, v_depth, moments, abs_moments,
):  # fmt: skip
    """Walk every `num_workers`-th tile back to front and write each intersection's moments into its slot.

    `abs_moments` receives the sums of the absolute values of each pixel's gradient with respect to the centre, x and y;
    it may be None.
    """
    buffer = np.empty(NUM_BACKWARD, np.float32)
    sums = np.empty(NUM_SUMS, np.float32)
    abs_sums = None if abs_moments is None else np.empty(2 * TILE, np.float32)
    row_deepest = np.empty(TILE, np.int32)
    for tile in range(worker, tile_starts.shape[0] - 1, num_workers):
        top, left = TILE * (tile // tiles_x), TILE * (tile % tiles_x)
        origin_x, origin_y = F(left) + HALF, F(top) + HALF
        start, stop = tile_starts[tile], tile_starts[tile + 1]
        if start == stop:
            continue
        load_gradients(buffer, row_deepest, top, left, background, alpha, depth, light, last, v_rgb, v_alpha, v_depth)
        deepest = row_deepest.max()
        for place in range(start + deepest + 1, stop):
            moments[slots[place], :] = ZERO
            if abs_moments is not None:
                abs_moments[slots[place], :] = ZERO
        for k in range(deepest, -1, -1):
            splat = splats[ids[start + k]]
            x, y = splat[X] - origin_x, splat[Y] - origin_y
            first, end = row_range(y, splat[EXTENT_Y])
            half_xx, conic_xy, half_yy = HALF * splat[CONIC_XX], splat[CONIC_XY], HALF * splat[CONIC_YY]
            reached = False
            for row in range(first, end):
                if k > row_deepest[row]:
                    continue
                if not reached:
                    sums[:] = ZERO
                    if abs_sums is not None:
                        abs_sums[:] = ZERO
                    reached = True
                row_backward(
                    buffer, sums, abs_sums, row, x, y, half_xx, conic_xy, half_yy,
                    splat[OPACITY], splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH], F(k), max_alpha,
                )  # fmt: skip
            if reached:
                write_moments(sums, x, moments, slots[start + k])
            else:
                moments[slots[start + k], :] = ZERO
            if abs_moments is not None:
                for axis in range(2):
                    abs_moments[slots[start + k], axis] = (
                        abs_sums[axis * TILE : (axis + 1) * TILE].sum() if reached else ZERO
                    )
