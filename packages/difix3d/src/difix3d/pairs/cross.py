"""Pairs across cameras: trained on what one camera saw, rendered where another one stood."""

from collections.abc import Iterator

import numpy as np

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair, distances_to
from difix3d.pairs.trained import new_trainer, render_at_checkpoints
from splat_recon.scene.scene import Scene
from splat_recon.scene.training_points import with_training_points

MIN_GROUP = 2
"""A camera counts as one if it took at least this many photos."""


def cross_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[GeneratedPair]:
    """Train on the photos of one camera, drawn, and render the poses of the others within reach.

    No photo of a camera that is rendered is trained on.
    """
    groups = camera_groups(scene)
    trained = int(rng.integers(len(groups)))
    train_names = groups[trained]
    others = [name for i, group in enumerate(groups) if i != trained for name in group]
    reach = config.cross_max_distance
    target_names = [name for name in others if distances_to(scene, name, train_names).min() <= reach]
    if not target_names:
        return
    scene, _ = with_training_points(scene, train_names)
    trainer = new_trainer(scene, scene.select(train_names), config, rng)
    yield from render_at_checkpoints(trainer, train_names, target_names, config.cross_at, "cross", config, rng)


def camera_groups(scene: Scene) -> list[list[str]]:
    """The photos of each camera, by the first of these rules that gives at least two groups of two photos.

    1. One folder per camera: photos are grouped by the folder in their name.
    2. One lens per camera: by intrinsics and size.
    3. One camera for all: the two sides of its trajectory, cut at the median along the longest axis of its positions.

    Groups of fewer than two photos are left out. Each is sorted by name.
    """
    folders = {view.name: view.name.rpartition("/")[0] for view in scene.views}
    lenses = {
        view.name: repr((view.camera.width, view.camera.height, *np.round(view.camera.K.ravel(), 3)))
        for view in scene.views
    }
    for key_of in (folders, lenses, _sides(scene)):
        groups = [[name for name in scene.names if key_of[name] == key] for key in sorted(set(key_of.values()))]
        groups = [group for group in groups if len(group) >= MIN_GROUP]
        if len(groups) > 1:
            return groups
    raise ValueError(f"scene {scene.name}: expected at least {2 * MIN_GROUP} photos, got {len(scene.views)}")


def _sides(scene: Scene) -> dict[str, str]:
    """Say "first" or "second" for every photo: on which side of the middle of the trajectory's longest axis it lies."""
    centers_world = np.stack([view.camera.center_world for view in scene.views])
    _, _, axes_world = np.linalg.svd(centers_world - centers_world.mean(axis=0))
    axis_world = axes_world[0] * np.sign(axes_world[0][np.abs(axes_world[0]).argmax()])
    along = centers_world @ axis_world
    # Ranks, so that the sides are of equal size whatever the spacing.
    order = np.argsort(along, kind="stable")
    half = len(order) // 2
    return {scene.names[i]: "first" if rank < half else "second" for rank, i in enumerate(order)}
