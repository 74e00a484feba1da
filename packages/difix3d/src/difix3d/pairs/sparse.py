"""Pairs from too few photos: fog, holes and floaters where nothing was seen."""

from collections.abc import Iterator

import numpy as np

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.made import MadePair
from difix3d.pairs.trained import pairs_on_the_way
from splat_recon.scene.scene import Scene


def sparse_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[MadePair]:
    """Train on a few evenly spaced photos, render held-out ones."""
    names = list(scene.names)
    most = min(config.max_sparse_views, len(names) - 1)
    count = int(rng.integers(min(config.min_sparse_views, most), most + 1))
    shift = rng.random()
    kept = sorted({int((i + shift) * len(names) / count) % len(names) for i in range(count)})
    train_names = [names[i] for i in kept]
    target_names = [name for name in names if name not in train_names]
    label = f"sparse_{count:02d}"
    yield from pairs_on_the_way(scene, train_names, target_names, config.sparse_at, label, config, rng)
