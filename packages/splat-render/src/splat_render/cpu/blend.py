"""Front-to-back blending of splats, tile by tile, as a numba kernel and its backward.

A tile of 16 x 16 pixels is cut into 16 blocks of 4 x 4, and the 16 pixels of a block are the lanes of one value (see
`cpu_lanes`): a small splat reaches few blocks. Which ones is decided for all 16 at once, exactly: by the least exponent
anywhere in each. The planes of a tile's buffer hold block after block. exp is a polynomial that is good on the range in
which a pixel can be reached at all, the same in both directions.
"""

import numpy as np
from numba import njit

from splat_render.cpu.harmonics import FLAGS
from splat_render.cpu.lanes import (
    WIDTH,
    address,
    bits,
    everywhere,
    fma,
    fold_2,
    fold_4,
    fold_8,
    fold_16,
    least,
    load,
    lowest_bit,
    magnitude,
    most,
    select,
    store,
    with_sign,
)
from splat_render.cpu.layout import BLUE, CONIC_XX, CONIC_XY, CONIC_YY, DEPTH, GREEN, LIMIT, OPACITY, RED, TILE, X, Y

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
ROUNDING = F(1 - 4e-6)
"""Lowers the least exponent of a block by what rounding may have added to it, so that no pixel is missed."""

BLOCK = 4
"""Side of a block in pixels."""
AHEAD = 32
"""Splats whose blocks are found together, and between two looks at which blocks still let light through. So the
processor need not wait for pixels before it knows which block comes next."""
FAR_PIXEL = F(BLOCK - 1)
U0 = U(0)
U1 = U(1)
LANES = U(WIDTH)
PLANE = U(TILE * TILE)
NUM_BLOCKS = TILE * TILE // WIDTH

# Planes of both buffers: where a tile's pixels lie in it, and first of all where its blocks begin (one value each).
P_X = U(0) * PLANE
P_Y = U(1) * PLANE
B_X = U(2) * PLANE
B_Y = B_X + LANES
P_LIGHT = U(3) * PLANE
# Planes of the forward buffer.
P_RED = U(4) * PLANE
P_GREEN = U(5) * PLANE
P_BLUE = U(6) * PLANE
P_DEPTH = U(7) * PLANE
P_LAST = U(8) * PLANE
# Planes of the backward buffer.
P_V_RED = U(4) * PLANE
P_V_GREEN = U(5) * PLANE
P_V_BLUE = U(6) * PLANE
P_V_DEPTH = U(7) * PLANE
P_DRAWN = U(8) * PLANE
P_BEHIND = U(9) * PLANE
NUM_FORWARD = 9 * TILE * TILE
NUM_BACKWARD = 10 * TILE * TILE

KEPT_LIGHT = U(0)
"""Planes that the forward keeps of every tile for the backward: the light behind the last splat drawn."""
KEPT_LAST = U(1)
"""That splat's place in the tile's list; -1: none."""
NUM_KEPT = 2


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def place_in_tile(row, column):
    """Where a pixel of a tile lies in a plane."""
    block = (row // BLOCK) * (TILE // BLOCK) + column // BLOCK
    return block * WIDTH + (row % BLOCK) * BLOCK + column % BLOCK


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def new_buffer(size):
    """A buffer with the coordinates of the tile's pixels and blocks, counted from the tile's first pixel."""
    spare = np.zeros(size + WIDTH, np.float32)
    # Values that lie across two lines of the cache would take twice as long.
    skipped = (LANES - (address(spare) // U(4)) % LANES) % LANES
    buffer = spare[skipped : skipped + U(size)]
    for row in range(TILE):
        for column in range(TILE):
            at = place_in_tile(row, column)
            buffer[int(P_X) + at] = F(column)
            buffer[int(P_Y) + at] = F(row)
    for block in range(NUM_BLOCKS):
        buffer[int(B_X) + block] = buffer[int(P_X) + block * WIDTH]
        buffer[int(B_Y) + block] = buffer[int(P_Y) + block * WIDTH]
    return buffer


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def exponent(dx, dy, half_xx, conic_xy, half_yy):
    """Half the squared Mahalanobis distance."""
    return fma(fma(dx, half_xx, dy * conic_xy), dx, dy * half_yy * dy)


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def reached_blocks(buffer, x, y, half_xx, conic_xy, half_yy, limit):
    """The blocks in which some exponent may be `limit` or less, as bits.

    The exponent is convex and least at the splat's center. Where that lies outside a block, the least value is on the
    nearer vertical or the nearer horizontal side.
    """
    xx, yy = half_xx * ROUNDING, half_yy * ROUNDING
    high_x, high_y = x - load(buffer, B_X), y - load(buffer, B_Y)
    low_x, low_y = high_x - FAR_PIXEL, high_y - FAR_PIXEL
    near_x = most(least(high_x, ZERO), low_x)
    near_y = most(least(high_y, ZERO), low_y)
    best_x = most(least(near_y * (-HALF * conic_xy / half_xx), high_x), low_x)
    best_y = most(least(near_x * (-HALF * conic_xy / half_yy), high_y), low_y)
    on_vertical = exponent(near_x, best_y, xx, conic_xy, yy)
    on_horizontal = exponent(best_x, near_y, xx, conic_xy, yy)
    return bits(least(on_vertical, on_horizontal) <= limit)


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def exp_minus(s):
    """exp(-s) for s in [0, MAX_EXPONENT], the same in both directions: a polynomial of s / 8, three times squared."""
    s = least(s, MAX_EXPONENT)
    e = fma(s, E6, E5)
    e = fma(s, e, E4)
    e = fma(s, e, E3)
    e = fma(s, e, E2)
    e = fma(s, e, E1)
    e = fma(s, e, E0)
    e = e * e
    e = e * e
    return e * e


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def blend_block(buffer, at, x, y, half_xx, conic_xy, half_yy, opacity, red, green, blue, depth, index, max_alpha):
    """Blend one splat into one block."""
    s = exponent(x - load(buffer, P_X + at), y - load(buffer, P_Y + at), half_xx, conic_xy, half_yy)
    alpha = least(exp_minus(s) * opacity, max_alpha)
    light = load(buffer, P_LIGHT + at)
    left = light - light * alpha
    seen = (alpha >= MIN_ALPHA) & (s >= ZERO)
    drawn = seen & (left > MIN_TRANSMITTANCE)
    weight = select(drawn, light * alpha, ZERO)
    # A pixel that is done keeps its light with the sign turned, so that nothing passes the test again. (Computed such
    # that all lanes are written: reading back soon after a masked store is slow.)
    light = with_sign(light - weight, select(drawn, light, select(seen, -ONE, light)))
    store(buffer, P_LIGHT + at, light)
    store(buffer, P_RED + at, fma(weight, red, load(buffer, P_RED + at)))
    store(buffer, P_GREEN + at, fma(weight, green, load(buffer, P_GREEN + at)))
    store(buffer, P_BLUE + at, fma(weight, blue, load(buffer, P_BLUE + at)))
    store(buffer, P_DEPTH + at, fma(weight, depth, load(buffer, P_DEPTH + at)))
    store(buffer, P_LAST + at, select(drawn, index, load(buffer, P_LAST + at)))


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def live_blocks(buffer):
    """The blocks that still let light through, as bits."""
    live = U0
    for block in range(U(NUM_BLOCKS)):
        live |= U(bits(load(buffer, P_LIGHT + block * LANES) > ZERO) != U0) << block
    return live


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def clear_tile(buffer, rows, columns):
    """An empty tile, of which `rows` x `columns` pixels lie in the image."""
    for block in range(U(NUM_BLOCKS)):
        at = block * LANES
        # Pixels beyond the image's edge never hold a tile or a block back.
        inside = (load(buffer, P_X + at) < columns) & (load(buffer, P_Y + at) < rows)
        store(buffer, P_LIGHT + at, select(inside, ONE, -ONE))
        for plane in (P_RED, P_GREEN, P_BLUE, P_DEPTH):
            store(buffer, plane + at, everywhere(ZERO))
        store(buffer, P_LAST + at, everywhere(-ONE))


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def finish_tile(buffer, background, kept):
    """Lay the background under a blended tile, make depth the expected one, and keep what the backward needs.

    Afterwards the plane of the light holds the alpha.
    """
    for block in range(U(NUM_BLOCKS)):
        at = block * LANES
        light = magnitude(load(buffer, P_LIGHT + at))
        alpha = ONE - light
        store(kept, KEPT_LIGHT * PLANE + at, light)
        store(kept, KEPT_LAST * PLANE + at, load(buffer, P_LAST + at))
        store(buffer, P_RED + at, fma(light, background[0], load(buffer, P_RED + at)))
        store(buffer, P_GREEN + at, fma(light, background[1], load(buffer, P_GREEN + at)))
        store(buffer, P_BLUE + at, fma(light, background[2], load(buffer, P_BLUE + at)))
        store(buffer, P_DEPTH + at, load(buffer, P_DEPTH + at) / most(alpha, MIN_WEIGHT))
        store(buffer, P_LIGHT + at, alpha)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def blend(
    worker, num_workers, tiles_x, tile_starts, ids, splats, background, max_alpha, rgb, alpha, depth, reached, kept
):
    """Blend every `num_workers`-th tile, beginning with number `worker`.

    Writes color, alpha and expected depth of the image, and what the backward needs: the blocks each intersection
    reaches as bits, and `NUM_KEPT` planes of each tile.
    """
    height, width = alpha.shape
    buffer = new_buffer(NUM_FORWARD)
    for tile in range(worker, tile_starts.shape[0] - 1, num_workers):
        top, left = TILE * (tile // tiles_x), TILE * (tile % tiles_x)
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        origin_x, origin_y = F(left) + HALF, F(top) + HALF
        clear_tile(buffer, F(rows), F(columns))
        start, stop = tile_starts[tile], tile_starts[tile + 1]
        for place in range(start, stop):
            if (place - start) % AHEAD == 0:
                live = live_blocks(buffer)
                if live == U0:
                    break
                for later in range(place, min(place + AHEAD, stop)):
                    splat = splats[ids[later]]
                    found = reached_blocks(
                        buffer, splat[X] - origin_x, splat[Y] - origin_y,
                        HALF * splat[CONIC_XX], splat[CONIC_XY], HALF * splat[CONIC_YY], splat[LIMIT],
                    )  # fmt: skip
                    reached[later] = np.uint16(found & live)
            splat = splats[ids[place]]
            x, y = splat[X] - origin_x, splat[Y] - origin_y
            half_xx, conic_xy, half_yy = HALF * splat[CONIC_XX], splat[CONIC_XY], HALF * splat[CONIC_YY]
            ahead = U(reached[place])
            while ahead != U0:
                at = lowest_bit(ahead) * LANES
                ahead &= ahead - U1
                blend_block(
                    buffer, at, x, y, half_xx, conic_xy, half_yy,
                    splat[OPACITY], splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH], F(place - start), max_alpha,
                )  # fmt: skip
        finish_tile(buffer, background, kept[tile])
        for row in range(rows):
            for column in range(columns):
                at = U(place_in_tile(row, column))
                rgb[top + row, left + column, 0] = buffer[P_RED + at]
                rgb[top + row, left + column, 1] = buffer[P_GREEN + at]
                rgb[top + row, left + column, 2] = buffer[P_BLUE + at]
                alpha[top + row, left + column] = buffer[P_LIGHT + at]
                depth[top + row, left + column] = buffer[P_DEPTH + at]


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def step_back(buffer, at, dx, dy, half_xx, conic_xy, half_yy, opacity, red, green, blue, depth, index, max_alpha):
    """Step back over one splat in one block: restore the light before it.

    Returns the gradient with respect to the exponent and the splat's weight, pixel by pixel.
    """
    s = exponent(dx, dy, half_xx, conic_xy, half_yy)
    raw = exp_minus(s) * opacity
    alpha = least(raw, max_alpha)
    drawn = (alpha >= MIN_ALPHA) & (s >= ZERO) & (load(buffer, P_DRAWN + at) >= index)
    alpha = select(drawn, alpha, ZERO)
    light = load(buffer, P_LIGHT + at) / (ONE - alpha)
    weight = light * alpha
    behind = load(buffer, P_BEHIND + at)
    value = load(buffer, P_V_RED + at) * red
    value = fma(load(buffer, P_V_GREEN + at), green, value)
    value = fma(load(buffer, P_V_BLUE + at), blue, value)
    value = fma(load(buffer, P_V_DEPTH + at), depth, value)
    # What lies behind counts by what would be seen without the splat, so no light need be divided by.
    gained = behind - value
    store(buffer, P_LIGHT + at, light)
    store(buffer, P_BEHIND + at, behind - alpha * gained)
    return select(drawn & (raw <= max_alpha), raw * light * gained, ZERO), weight


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def load_tile(buffer, kept, top, left, background, alpha, depth, v_rgb, v_alpha, v_depth):
    """Fill the planes of one tile with the image's gradients; returns the last place drawn in each block and in all.

    Where nothing is drawn that place is -1. Light that is left counts by what it lets through: the background, and
    1 - alpha. The expected depth is a ratio, so its gradient reaches the blended depth and alpha.
    """
    height, width = alpha.shape
    for row in range(min(TILE, height - top)):
        for column in range(min(TILE, width - left)):
            at = U(place_in_tile(row, column))
            i, j = top + row, left + column
            covered = alpha[i, j]
            weight_gradient = v_depth[i, j] / covered if covered > MIN_WEIGHT else ZERO
            buffer[P_V_RED + at] = v_rgb[i, j, 0]
            buffer[P_V_GREEN + at] = v_rgb[i, j, 1]
            buffer[P_V_BLUE + at] = v_rgb[i, j, 2]
            buffer[P_V_DEPTH + at] = weight_gradient
            buffer[P_BEHIND + at] = weight_gradient * depth[i, j] - v_alpha[i, j]
    deepest = -ONE
    for block in range(U(NUM_BLOCKS)):
        at = block * LANES
        light, last = load(kept, KEPT_LIGHT * PLANE + at), load(kept, KEPT_LAST * PLANE + at)
        through = load(buffer, P_V_RED + at) * background[0]
        through = fma(load(buffer, P_V_GREEN + at), background[1], through)
        through = fma(load(buffer, P_V_BLUE + at), background[2], through)
        store(buffer, P_BEHIND + at, load(buffer, P_BEHIND + at) + through)
        store(buffer, P_LIGHT + at, light)
        store(buffer, P_DRAWN + at, last)
        for lane in range(LANES):
            deepest = max(deepest, kept[KEPT_LAST * PLANE + at + lane])
    return int(deepest)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def blend_backward(
    worker, num_workers, tiles_x, tile_starts, ids, splats, background, max_alpha, reached, kept,
    alpha, depth, v_rgb, v_alpha, v_depth, moments, absgrad,
):  # fmt: skip
    """Walk every `num_workers`-th tile back to front and write each intersection's moments at its place.

    The compiler leaves out the moments of the absolute gradients where `absgrad` is None.
    """
    buffer = new_buffer(NUM_BACKWARD)
    zero = everywhere(ZERO)
    for tile in range(worker, tile_starts.shape[0] - 1, num_workers):
        start, stop = tile_starts[tile], tile_starts[tile + 1]
        if start == stop:
            continue
        top, left = TILE * (tile // tiles_x), TILE * (tile % tiles_x)
        origin_x, origin_y = F(left) + HALF, F(top) + HALF
        deepest = load_tile(buffer, kept[tile], top, left, background, alpha, depth, v_rgb, v_alpha, v_depth)
        for place in range(start + deepest + 1, stop):
            store(moments, U(place) * LANES, zero)
        for place in range(start + deepest, start - 1, -1):
            splat = splats[ids[place]]
            x, y = splat[X] - origin_x, splat[Y] - origin_y
            half_xx, conic_xy, half_yy = HALF * splat[CONIC_XX], splat[CONIC_XY], HALF * splat[CONIC_YY]
            m_00 = m_10 = m_01 = m_20 = m_11 = m_02 = zero
            m_red = m_green = m_blue = m_depth = abs_x = abs_y = zero
            ahead = U(reached[place])
            if ahead == U0:
                store(moments, U(place) * LANES, zero)
                continue
            while ahead != U0:
                at = lowest_bit(ahead) * LANES
                ahead &= ahead - U1
                dx, dy = x - load(buffer, P_X + at), y - load(buffer, P_Y + at)
                v_exponent, weight = step_back(
                    buffer, at, dx, dy, half_xx, conic_xy, half_yy,
                    splat[OPACITY], splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH], F(place - start), max_alpha,
                )  # fmt: skip
                by_x, by_y = v_exponent * dx, v_exponent * dy
                m_00, m_10, m_01 = m_00 + v_exponent, m_10 + by_x, m_01 + by_y
                m_20, m_11, m_02 = fma(by_x, dx, m_20), fma(by_x, dy, m_11), fma(by_y, dy, m_02)
                m_red = fma(weight, load(buffer, P_V_RED + at), m_red)
                m_green = fma(weight, load(buffer, P_V_GREEN + at), m_green)
                m_blue = fma(weight, load(buffer, P_V_BLUE + at), m_blue)
                m_depth = fma(weight, load(buffer, P_V_DEPTH + at), m_depth)
                if absgrad is not None:
                    abs_x = abs_x + magnitude(fma(by_x, TWO * half_xx, by_y * conic_xy))
                    abs_y = abs_y + magnitude(fma(by_x, conic_xy, by_y * (TWO * half_yy)))
            first = fold_8(fold_16(m_00, m_10), fold_16(m_01, m_20))
            second = fold_8(fold_16(m_11, m_02), fold_16(m_red, m_green))
            third = fold_8(fold_16(m_blue, m_depth), fold_16(abs_x, abs_y))
            folded = fold_2(fold_4(first, second), fold_4(third, zero))
            store(moments, U(place) * LANES, folded)
