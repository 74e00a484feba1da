"""Pairs as a training from few photos makes them: one splat's renders, and the median of several."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from difix3d.ensemble import ensemble_view
from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.sparse import every_nth
from difix3d.pairs.trained import pair_of_render, train_config
from output_files import output_names
from splat_recon.few_photos import config_for_photos
from splat_recon.scene.scene import Scene
from splat_recon.scene.training_points import with_training_points
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import ViewSet
from splat_render.device import chosen_device
from splat_render.output import RenderOutput

NUM_SPLATS = 3
"""Splats of the same photos whose median is rendered."""


def few_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[GeneratedPair]:
    """Train several splats on few photos with all that suits few, and render test ones at the end.

    Each target gives two pairs: the first splat's render, and the median of all. There is no stereo start.
    """
    names = list(scene.names)
    kept = every_nth(len(names), config, rng)
    train_names = [names[i] for i in kept]
    target_names = [name for name in names if name not in train_names]
    scene, _ = with_training_points(scene, train_names)
    photos = scene.select(train_names)
    trainers = []
    for _ in range(NUM_SPLATS):
        drawn = dataclasses.replace(train_config(photos, config, rng), random_background=False)
        suited = config_for_photos(photos, drawn, points=scene.points)
        trainer = SplatTrainer(scene, ViewSet.from_views(photos), suited, device=chosen_device(config.device))
        trainer.train_until(config.max_steps)
        trainers.append(trainer)
    stems = output_names(scene.names, ending="", flat=True)
    for i in sorted(rng.permutation(len(target_names))[: config.targets_per_render]):
        target = target_names[i]
        outputs = [trainer.render(scene.view(target).camera) for trainer in trainers]
        median = dataclasses.replace(outputs[0], rgb=ensemble_view(outputs, "median").rgb)
        shown: tuple[tuple[str, RenderOutput], ...] = (("one", outputs[0]), ("median", median))
        for kind, output in shown:
            label = f"few_{len(kept):02d}_{kind}"
            yield pair_of_render(f"{label}_{stems[target]}", label, scene, target, output, train_names)
