"""Pairs from a training that stopped early: blur, blotches and needles."""

from collections.abc import Iterator

import numpy as np

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.trained import new_trainer, render_at_checkpoints
from splat_recon.scene.scene import Scene
from splat_recon.scene.training_points import with_training_points

HELD_OUT_EVERY = 4
"""Every so many photos are held out of the training."""


def underfit_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[GeneratedPair]:
    """Train on most photos, render the others at 25 % of the schedule and later."""
    names = list(scene.names)
    first = int(rng.integers(min(HELD_OUT_EVERY, len(names) - 1)))
    target_names = names[first::HELD_OUT_EVERY]
    train_names = [name for name in names if name not in target_names]
    scene, _ = with_training_points(scene, train_names)
    trainer = new_trainer(scene, scene.select(train_names), config, rng)
    yield from render_at_checkpoints(trainer, train_names, target_names, config.underfit_at, "underfit", config, rng)
