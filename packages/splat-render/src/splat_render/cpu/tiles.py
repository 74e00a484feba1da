"""Which splats touch which tile, front to back."""

import math

import numpy as np
from numba import njit

from splat_render.cpu.layout import TILE, X, Y

F = np.float32
INV_TILE = F(1 / TILE)
RADIX_BITS = 11
RADIX = 1 << RADIX_BITS
RADIX_MASK = np.uint32(RADIX - 1)


@njit(nogil=True, cache=True, error_model="numpy")
def tile_box(x, y, radius_x, radius_y, tiles_x, tiles_y):
    """Half-open range of tiles under a splat's bounding box: first and last column, first and last row."""
    tile_x, tile_y = x * INV_TILE, y * INV_TILE
    half_x, half_y = F(radius_x) * INV_TILE, F(radius_y) * INV_TILE
    first_x = int(max(math.floor(tile_x - half_x), F(0)))
    first_y = int(max(math.floor(tile_y - half_y), F(0)))
    last_x = int(min(math.ceil(tile_x + half_x), F(tiles_x)))
    last_y = int(min(math.ceil(tile_y + half_y), F(tiles_y)))
    return first_x, max(last_x, first_x), first_y, max(last_y, first_y)


@njit(nogil=True, cache=True, error_model="numpy")
def depth_order(depth_bits, radii):
    """Indices of visible splats from near to far; equal depths keep the order of their indices.

    `depth_bits` are the bytes of positive float32 depths read as integers, which sort alike.
    """
    num_visible = 0
    for i in range(radii.shape[0]):
        num_visible += radii[i, 0] > 0
    order = np.empty(num_visible, np.int32)
    spare = np.empty(num_visible, np.int32)
    filled = 0
    for i in range(radii.shape[0]):
        if radii[i, 0] > 0:
            order[filled] = i
            filled += 1
    for shift in (0, RADIX_BITS, 2 * RADIX_BITS):
        starts = np.zeros(RADIX + 1, np.int64)
        for k in range(num_visible):
            starts[((depth_bits[order[k]] >> np.uint32(shift)) & RADIX_MASK) + 1] += 1
        for digit in range(RADIX):
            starts[digit + 1] += starts[digit]
        for k in range(num_visible):
            digit = (depth_bits[order[k]] >> np.uint32(shift)) & RADIX_MASK
            spare[starts[digit]] = order[k]
            starts[digit] += 1
        order, spare = spare, order
    return order


@njit(nogil=True, cache=True, error_model="numpy")
def bin_splats(splats, depth_bits, radii, tiles_x, tiles_y):
    """List the splats of every tile from near to far.

    Returns:
        ids: Splat of every intersection, tile after tile, int32.
        places: Places in `ids` of every splat's intersections, splat after splat, int32.
        tile_starts: Where each tile's part of `ids` begins, with the end as last element, int64.
        place_starts: Where each splat's part of `places` begins, with the end as last element, int64.
    """
    num_splats = radii.shape[0]
    place_starts = np.zeros(num_splats + 1, np.int64)
    tile_starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    boxes = np.empty((num_splats, 4), np.int32)
    for i in range(num_splats):
        count = 0
        if radii[i, 0] > 0:
            x0, x1, y0, y1 = tile_box(splats[i, X], splats[i, Y], radii[i, 0], radii[i, 1], tiles_x, tiles_y)
            boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = x0, x1, y0, y1
            count = (x1 - x0) * (y1 - y0)
            for tile_y in range(y0, y1):
                for tile_x in range(x0, x1):
                    tile_starts[tile_y * tiles_x + tile_x + 1] += 1
        place_starts[i + 1] = place_starts[i] + count
    for tile in range(tiles_x * tiles_y):
        tile_starts[tile + 1] += tile_starts[tile]
    ids = np.empty(place_starts[num_splats], np.int32)
    places = np.empty(place_starts[num_splats], np.int32)
    filled = tile_starts.copy()
    for i in depth_order(depth_bits, radii):
        slot = place_starts[i]
        for tile_y in range(boxes[i, 2], boxes[i, 3]):
            for tile_x in range(boxes[i, 0], boxes[i, 1]):
                place = filled[tile_y * tiles_x + tile_x]
                filled[tile_y * tiles_x + tile_x] = place + 1
                ids[place] = i
                places[slot] = place
                slot += 1
    return ids, places, tile_starts, place_starts
