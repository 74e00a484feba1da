"""The scene of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from difix3d.image_memory import photo_bytes
from splat_recon.io.colmap import read_scene
from splat_recon.scene.normalize import normalized
from splat_recon.scene.splits import Split, make_split
from splat_recon.scene.synthetic import DEMO_SEED, SyntheticConfig, generate_scene

if TYPE_CHECKING:
    from difix3d.settings import RunSettings
    from splat_recon.scene.scene import Scene


def load_scene(settings: RunSettings) -> tuple[Scene, Split]:
    """The normalized scene of resolved settings, and which of its photos are held out."""
    if settings.scene is None:
        size = settings.max_size or 256
        scene = generate_scene(DEMO_SEED, SyntheticConfig(width=size, height=size * 3 // 4))
        folder = None
    else:
        folder = Path(settings.scene)
        scene = read_scene(folder, max_size=settings.max_size, photo_bytes=photo_bytes(settings.image_memory))
    split = make_split(scene.names, settings.split or "auto", sparse=settings.sparse, scene_folder=folder)
    return normalized(scene), split
