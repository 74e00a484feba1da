"""Scenes that are read or generated when their turn comes, in whatever process that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from difix3d.errors import InputError
from difix3d.pairs.config import PairsConfig
from splat_recon.scene.scene import Scene

if TYPE_CHECKING:
    from splat_recon.scene.synthetic import SyntheticConfig

MOST_DARK = 0.5
"""Every second generated scene has dark surfaces, up to this share of them."""

VARIED_STREAM = 1
"""Keeps what varies with a scene's photography apart from what its seed draws otherwise."""

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

RESERVED = {"failed", "pairs.json", "card.json", "config.json", "CARD.md", "histogram.png"}
"""What stands beside the scenes in a folder of pairs."""


@runtime_checkable
class SceneSource(Protocol):
    """Where a scene comes from; small, and can be sent to another process."""

    @property
    def name(self) -> str:
        """Folder name of its pairs; unique."""
        ...

    @property
    def kind(self) -> str:
        """What the data card calls it: "generated" or "captured"."""
        ...

    def load(self) -> Scene:
        """Read or generate the scene."""
        ...

    def num_unregistered(self, scene: Scene) -> int:
        """How many photos there are beside those of the loaded scene, for want of a pose."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedSource:
    """A generated scene, in 4:3."""

    name: str
    """Folder name of its pairs."""

    seed: int
    """Seed of the scene."""

    num_views: int
    """Number of photos."""

    width: int
    """Width of a photo in pixels."""

    varied: bool = False
    """Whether noise, exposure and points are drawn too."""

    panoramas: Path | None = None
    """Folder of equirectangular photos, as textures and surroundings."""

    kind: str = "generated"
    """What the data card calls it."""

    def load(self) -> Scene:
        """Generate it."""
        from splat_recon.scene.synthetic import SyntheticConfig, generate_scene

        config = SyntheticConfig(
            num_views=self.num_views, width=self.width, height=round(0.75 * self.width), panoramas=self.panoramas
        )
        return generate_scene(self.seed, _varied(config, self.seed) if self.varied else config)

    def num_unregistered(self, scene: Scene) -> int:
        """None: every photo has its pose."""
        del scene
        return 0


def _varied(config: SyntheticConfig, seed: int) -> SyntheticConfig:
    """From a good camera on a calm day to a poor one, from many exact points to few rough ones; some dark."""
    rng = np.random.default_rng([seed, VARIED_STREAM])

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    return dataclasses.replace(
        config,
        dark_fraction=max(0.0, float(rng.uniform(-MOST_DARK, MOST_DARK))),
        sensor_noise=between(0.002, 0.03),
        exposure_spread=between(0.005, 0.12),
        num_points=round(between(300, 4000)),
        point_noise=between(0.0005, 0.01),
        outlier_fraction=between(0.002, 0.06),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturedSource:
    """A captured scene in COLMAP layout."""

    name: str
    """Folder name of its pairs."""

    folder: Path
    """Where it is; under Ray, on every node."""

    max_size: int
    """Longer side of the photos in pixels."""

    kind: str = "captured"
    """What the data card calls it."""

    def load(self) -> Scene:
        """Read it."""
        from splat_recon.io.colmap import read_scene

        return read_scene(self.folder, max_size=self.max_size)

    def num_unregistered(self, scene: Scene) -> int:
        """Count the photos in `images` that the model does not know."""
        images = self.folder / "images"
        registered = {Path(name).with_suffix("") for name in scene.names}
        photos = (path for path in images.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
        return sum(path.relative_to(images).with_suffix("") not in registered for path in photos)


def generated_sources(num_scenes: int, first_seed: int, config: PairsConfig) -> list[SceneSource]:
    """Generated scenes of consecutive seeds, in 4:3 at the config's size.

    Raises:
        InputError: The config names a folder that holds no panorama, or something else.
    """
    panoramas = None
    if config.panoramas is not None:
        from splat_recon.scene.synthetic.panoramas import read_panoramas

        panoramas = Path(config.panoramas).resolve()
        read_panoramas(panoramas)
    return [
        GeneratedSource(
            name=f"generated_{seed:05d}",
            seed=seed,
            num_views=config.num_views,
            width=config.max_size,
            varied=config.varied,
            panoramas=panoramas,
        )
        for seed in range(first_seed, first_seed + num_scenes)
    ]


def colmap_sources(folders: Sequence[Path], config: PairsConfig) -> list[SceneSource]:
    """Captured scenes in COLMAP layout.

    Raises:
        InputError: A folder is missing, two have the same name, or one has a name that the folder of pairs needs.
    """
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise InputError(f"no scene folder {', '.join(missing[:10])}")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"scene folders must have different names, got {', '.join(names)}")
    reserved = sorted(set(names) & RESERVED)
    if reserved:
        raise InputError(f"a scene folder cannot be named {', '.join(reserved)}: the folder of pairs needs that name")
    return [
        CapturedSource(name=name, folder=folder.resolve(), max_size=config.max_size)
        for name, folder in zip(names, folders, strict=True)
    ]
