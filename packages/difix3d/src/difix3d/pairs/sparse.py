"""Pairs from too few photos: fog, holes and floaters where nothing was seen."""

from collections.abc import Iterator

import numpy as np

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.trained import new_trainer, render_at_checkpoints
from splat_recon.scene.scene import Scene
from splat_recon.scene.training_points import with_training_points


def sparse_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[GeneratedPair]:
    """Train on every nth photo, in the order of their names, and render held-out ones."""
    names = list(scene.names)
    kept = every_nth(len(names), config, rng)
    train_names = [names[i] for i in kept]
    target_names = [name for name in names if name not in train_names]
    label = f"sparse_{len(kept):02d}"
    scene, _ = with_training_points(scene, train_names)
    trainer = new_trainer(scene, scene.select(train_names), config, rng)
    yield from render_at_checkpoints(trainer, train_names, target_names, config.sparse_at, label, config, rng)


def every_nth(num_photos: int, config: PairsConfig, rng: np.random.Generator) -> list[int]:
    """Indices of the photos to train on: at least two, and never all."""
    if config.sparse_every:
        every = min(config.sparse_every, num_photos // 2)
        return list(range(int(rng.integers(every)), num_photos, every))
    most = min(config.max_sparse_views, num_photos - 1)
    count = int(rng.integers(min(config.min_sparse_views, most), most + 1))
    shift = rng.random()
    return sorted({int((i + shift) * num_photos / count) % num_photos for i in range(count)})
