"""The scene of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from difix3d.run.image_memory import photo_bytes
from splat_recon.io.colmap import read_scene
from splat_recon.scene.normalize import normalized
from splat_recon.scene.splits import Split, make_split
from splat_recon.scene.synthetic import DEMO_SEED, SyntheticConfig, generate_scene
from splat_recon.scene.training_points import TrainingPoints, with_training_points

if TYPE_CHECKING:
    from difix3d.run.settings import RunSettings
    from splat_recon.scene.scene import Scene


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RunScene:
    """What a run trains on and is measured on."""

    scene: Scene
    """The normalized scene, with the points that two of the training photos see."""

    split: Split
    """Which of its photos are trained on, and which are held out."""

    points: TrainingPoints
    """How many points these are, of how many."""


def load_scene(settings: RunSettings) -> RunScene:
    """The scene of resolved settings."""
    if settings.scene is None:
        size = settings.max_size or 256
        scene = generate_scene(DEMO_SEED, SyntheticConfig(width=size, height=size * 3 // 4))
        folder = None
    else:
        folder = Path(settings.scene)
        scene = read_scene(folder, max_size=settings.max_size, photo_bytes=photo_bytes(settings.image_memory))
    split = make_split(scene.names, settings.split or "auto", sparse=settings.sparse, scene_folder=folder)
    scene, points = with_training_points(normalized(scene), split.train)
    points.log()
    return RunScene(scene=scene, split=split, points=points)
