"""Distances to nearest neighbors in a cloud of points."""

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike
from scipy.spatial import KDTree


def neighbor_distances(points: ArrayLike, num_neighbors: int) -> Float64[np.ndarray, "n k"]:
    """Distances from each point to its nearest others, in ascending order.

    A point is its own neighbor never, but coinciding points are each other's at distance 0.

    Args:
        points: ``[n 3]``, finite.
        num_neighbors: How many neighbors of each point, less than n.

    Returns:
        ``[n num_neighbors]``, float64.

    Raises:
        ValueError: There are not enough points.
    """
    cloud = np.asarray(points, dtype=np.float64)
    if not 1 <= num_neighbors < len(cloud):
        raise ValueError(f"num_neighbors must be at least 1 and less than the {len(cloud)} points, got {num_neighbors}")
    # The nearest of all is at distance 0: the point itself, or one that coincides with it and may stand for it.
    return KDTree(cloud).query(cloud, k=num_neighbors + 1)[0][:, 1:]
