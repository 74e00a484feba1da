"""Distances to nearest neighbours in a cloud of points: a k-d tree, compiled with numba."""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

LEAF_SIZE = 16
"""Points in a leaf of the tree: below this many, trying all is quicker than dividing on."""

STACK_SIZE = 128
"""Places for postponed branches: the tree is balanced, so there are never more than its depth."""


def neighbor_distances(points: ArrayLike, num_neighbors: int) -> np.ndarray:
    """Distances from each point to its nearest others, in ascending order.

    A point is its own neighbour never, but coinciding points are each other's at distance 0.

    Args:
        points: ``[n 3]``, finite.
        num_neighbors: How many neighbours of each point, less than n.

    Returns:
        ``[n num_neighbors]``, float64.

    Raises:
        ValueError: There are not enough points.
    """
    cloud = np.ascontiguousarray(points, dtype=np.float64)
    if not 1 <= num_neighbors < len(cloud):
        raise ValueError(f"num_neighbors must be at least 1 and less than the {len(cloud)} points, got {num_neighbors}")
    order, split_axis, split_value = _build(cloud)
    squared = np.empty((len(cloud), num_neighbors))
    _query_all(cloud[order], order, split_axis, split_value, squared)
    return np.sqrt(squared)


def _build(cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order the points so that node k's halves are contiguous; node k has the children 2 k + 1 and 2 k + 2."""
    order = np.arange(len(cloud))
    depth = 0
    # Halves are rounded up: a branch ends only where the larger one fits a leaf.
    while -(-len(cloud) // 2**depth) > LEAF_SIZE:
        depth += 1
    # An axis of -1 marks a leaf.
    split_axis = np.full(2 ** (depth + 1), -1, dtype=np.int64)
    split_value = np.zeros(2 ** (depth + 1))
    waiting = [(0, 0, len(cloud))]
    while waiting:
        node, low, high = waiting.pop()
        if high - low <= LEAF_SIZE:
            continue
        part = order[low:high]
        axis = int(np.argmax(np.ptp(cloud[part], axis=0)))
        middle = (low + high) // 2
        part = part[np.argpartition(cloud[part, axis], middle - low)]
        order[low:high] = part
        split_axis[node], split_value[node] = axis, cloud[order[middle], axis]
        waiting += [(2 * node + 1, low, middle), (2 * node + 2, middle, high)]
    return order, split_axis, split_value


@njit(cache=True)
def _query_all(cloud, order, split_axis, split_value, squared):
    num_points, num_neighbors = len(cloud), squared.shape[1]
    nodes = np.empty(STACK_SIZE, dtype=np.int64)
    lows = np.empty(STACK_SIZE, dtype=np.int64)
    highs = np.empty(STACK_SIZE, dtype=np.int64)
    bounds = np.empty(STACK_SIZE)
    best = np.empty(num_neighbors)
    for query in range(num_points):
        best[:] = np.inf
        nodes[0], lows[0], highs[0], bounds[0] = 0, 0, num_points, 0.0
        size = 1
        while size > 0:
            size -= 1
            node, low, high, bound = nodes[size], lows[size], highs[size], bounds[size]
            if bound >= best[-1]:
                continue
            axis = split_axis[node]
            if axis < 0:
                _try_leaf(cloud, query, low, high, best)
                continue
            middle = (low + high) // 2
            offset = cloud[query, axis] - split_value[node]
            far_bound = max(bound, offset * offset)
            left_is_near = offset < 0
            # The nearer half goes on top of the stack, so that it is searched first.
            for near in range(2):
                left = left_is_near == (near == 1)
                nodes[size] = 2 * node + 1 if left else 2 * node + 2
                lows[size] = low if left else middle
                highs[size] = middle if left else high
                bounds[size] = bound if near == 1 else far_bound
                size += 1
        squared[order[query]] = best


@njit(cache=True)
def _try_leaf(cloud, query, low, high, best):
    for other in range(low, high):
        if other == query:
            continue
        dx = cloud[other, 0] - cloud[query, 0]
        dy = cloud[other, 1] - cloud[query, 1]
        dz = cloud[other, 2] - cloud[query, 2]
        candidate = dx * dx + dy * dy + dz * dz
        if candidate < best[-1]:
            place = len(best) - 1
            while place > 0 and best[place - 1] > candidate:
                best[place] = best[place - 1]
                place -= 1
            best[place] = candidate
