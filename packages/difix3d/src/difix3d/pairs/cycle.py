"""Pairs from a splat of a splat: what is lost on the way to a shifted trajectory and back."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.trained import as_bytes, coverage, new_trainer, render_at_checkpoints
from splat_recon.scene.scene import Scene, View
from splat_recon.trainer import SplatTrainer
from splat_render.cameras import Camera

SAME_WAY = 0.5
"""Cameras whose right-hand axes have a mean of at least this length face about the same way."""

MIN_SHIFTED = 2
"""A second splat needs this many renders."""


def cycle_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[GeneratedPair]:
    """Train on all photos, render a shifted trajectory, train anew on those renders, and render the photos' poses.

    The second training starts from the scene's points, as the first does. Renders of the shifted trajectory that
    show nothing (`filters.min_coverage`) are not trained on; with fewer than two left there are no pairs.
    """
    names = list(scene.names)
    offset_world = sideways_offset(scene, config, rng)
    first = new_trainer(scene, scene.views, config, rng)
    first.train_until(config.max_steps)
    shifted = shifted_renders(first, offset_world, config.filters.min_coverage)
    if len(shifted) < MIN_SHIFTED:
        return
    second = new_trainer(scene, shifted, config, rng)
    yield from render_at_checkpoints(second, names, names, config.cycle_at, "cycle", config, rng)


def sideways_offset(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Float64[np.ndarray, " 3"]:
    """How the trajectory is moved, as one vector in the world.

    Cameras that face about the same way are moved to their common left or right, as a car to another lane. Cameras
    that look all around are moved in a drawn direction perpendicular to their mean up axis.
    """
    poses = np.stack([view.camera.T_world_cam for view in scene.views])
    length = rng.uniform(*config.cycle_shift) * scene.extent
    sign, angle = (1.0 if rng.random() < 0.5 else -1.0), rng.uniform(0, 2 * np.pi)
    right_world = poses[:, :3, 0].mean(axis=0)
    if np.linalg.norm(right_world) >= SAME_WAY:
        return sign * length * right_world / np.linalg.norm(right_world)
    # The first row is the up axis itself; the others are two axes perpendicular to it.
    _, _, axes_world = np.linalg.svd(poses[:, :3, 1].mean(axis=0)[None])
    return length * (np.cos(angle) * axes_world[1] + np.sin(angle) * axes_world[2])


def shifted_renders(trainer: SplatTrainer, offset_world: Float64[np.ndarray, " 3"], min_coverage: float) -> list[View]:
    """Renders from the scene's cameras, all moved by one vector, without those that show nothing."""
    found = []
    for view in trainer.scene.views:
        camera = _moved(view.camera, offset_world)
        output = trainer.render(camera)
        if coverage(output) >= min_coverage:
            found.append(View(name=view.name, camera=camera, rgb_u8=as_bytes(output)))
    return found


def _moved(camera: Camera, offset_world: Float64[np.ndarray, " 3"]) -> Camera:
    T_world_cam = camera.T_world_cam.copy()
    T_world_cam[:3, 3] += offset_world
    return dataclasses.replace(camera, T_world_cam=T_world_cam)
