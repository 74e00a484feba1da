"""Pairs as a training from few photos makes them: one splat's renders, and the median of several."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from difix3d.ensemble import ensemble_view
from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.sparse import every_nth
from difix3d.pairs.trained import pair_of_render, train_config
from output_files import output_names
from splat_recon.few_photos import config_for_photos
from splat_recon.scene.scene import Scene, View
from splat_recon.scene.training_points import with_training_points
from splat_recon.stereo.start import StereoMatching, StereoStart, wants_stereo
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import ViewSet
from splat_render.device import chosen_device
from splat_render.output import RenderOutput

NUM_SPLATS = 3
"""Splats of the same photos whose median is rendered."""

STEREO_PROB = 0.5
"""Fraction of trainings in which all splats but the first start from stereo points as well, where stereo finds any."""


def few_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[GeneratedPair]:
    """Train several splats on few photos with all that suits few, and render test ones at the end.

    Each target gives two pairs: the last splat's render, which has started from stereo points where there are any, and
    the median of all.
    """
    names = list(scene.names)
    kept = every_nth(len(names), config, rng)
    train_names = [names[i] for i in kept]
    target_names = [name for name in names if name not in train_names]
    scene, _ = with_training_points(scene, train_names)
    photos = scene.select(train_names)
    stereo = stereo_start(scene, photos) if rng.random() < STEREO_PROB else None
    trainers = []
    for index in range(NUM_SPLATS):
        drawn = dataclasses.replace(train_config(photos, config, rng), random_background=False)
        suited = config_for_photos(photos, drawn, points=scene.points)
        start = scene
        if index > 0 and stereo is not None:
            start, suited = stereo.scene(scene), stereo.train_config(suited)
        trainer = SplatTrainer(start, ViewSet.from_views(photos), suited, device=chosen_device(config.device))
        trainer.train_until(config.max_steps)
        trainers.append(trainer)
    stems = output_names(scene.names, ending="", flat=True)
    for i in sorted(rng.permutation(len(target_names))[: config.targets_per_render]):
        target = target_names[i]
        outputs = [trainer.render(scene.view(target).camera) for trainer in trainers]
        median = dataclasses.replace(outputs[0], rgb=ensemble_view(outputs, "median").rgb)
        shown: tuple[tuple[str, RenderOutput], ...] = (("one", outputs[-1]), ("median", median))
        for kind, output in shown:
            label = f"few_{len(kept):02d}_{kind}"
            yield pair_of_render(f"{label}_{stems[target]}", label, scene, target, output, train_names)


def stereo_start(scene: Scene, photos: Sequence[View]) -> StereoStart | None:
    """What stereo adds to the points; None where there are too few to know the range of depths."""
    if not wants_stereo("auto", scene, len(photos)):
        return None
    matching = StereoMatching(scene, photos, num_threads=1)
    while not matching.done:
        matching.advance()
    return matching.start()
