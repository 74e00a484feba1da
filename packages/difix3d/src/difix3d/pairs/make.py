"""Make pairs of many scenes in a folder: one sub-folder per scene, finished scenes are kept when run again."""

import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from difix3d.errors import InputError, as_input_error
from difix3d.pairs.config import PROMPT, PairsConfig
from difix3d.pairs.made import MadePair
from difix3d.pairs.painted import painted_pairs
from difix3d.pairs.sparse import sparse_pairs
from difix3d.pairs.underfit import underfit_pairs
from difix_model.pairs import PairRecord, read_pairs, write_pairs
from splat_recon.scene.scene import Scene

logger = logging.getLogger(__name__)

PAIRS_FILE = "pairs.json"
CONFIG_FILE = "config.json"

MakePairs = Callable[[Scene, PairsConfig, np.random.Generator], Iterator[MadePair]]
MAKERS: dict[str, MakePairs] = {"sparse": sparse_pairs, "underfit": underfit_pairs, "painted": painted_pairs}


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSource:
    """A scene that is read or generated when its turn comes."""

    name: str
    """Folder name of its pairs; unique."""
    load: Callable[[], Scene]


def generated_sources(num_scenes: int, first_seed: int, config: PairsConfig) -> list[SceneSource]:
    """Generated scenes of consecutive seeds, in 4:3 at the config's size."""
    from splat_recon.scene.synthetic import SyntheticConfig, generate_scene

    size = SyntheticConfig(num_views=config.num_views, width=config.max_size, height=round(0.75 * config.max_size))

    def source(seed: int) -> SceneSource:
        return SceneSource(name=f"generated_{seed:05d}", load=lambda: generate_scene(seed, size))

    return [source(seed) for seed in range(first_seed, first_seed + num_scenes)]


def colmap_sources(folders: Sequence[Path], config: PairsConfig) -> list[SceneSource]:
    """Captured scenes in COLMAP layout.

    Raises:
        InputError: A folder is missing, or two have the same name.
    """
    from splat_recon.io.colmap import read_scene

    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise InputError(f"no scene folder {', '.join(missing[:10])}")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"scene folders must have different names, got {', '.join(names)}")

    def source(name: str, folder: Path) -> SceneSource:
        return SceneSource(name=name, load=lambda: read_scene(folder, max_size=config.max_size))

    return [source(name, folder) for name, folder in zip(names, folders, strict=True)]


def open_pairs_folder(out: Path, config: PairsConfig) -> None:
    """Create the folder, or check that what is in it was made with the same settings.

    Raises:
        InputError: It holds pairs of other settings, or cannot be written.
    """
    path = out / CONFIG_FILE
    settings = json.loads(json.dumps(asdict(config)))
    with as_input_error():
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != settings:
                raise InputError(f"{out} holds pairs made with other settings: choose another folder or delete it")
            return
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def make_scene_pairs(source: SceneSource, out: Path, config: PairsConfig) -> list[PairRecord]:
    """Make the pairs of one scene, or read them where they are finished.

    The scene's file of pairs is written last, so an interrupted scene is made anew.

    Args:
        source: The scene.
        out: Folder of the whole set.
        config: What to make.

    Raises:
        InputError: The scene cannot be read or the folder cannot be written.
    """
    folder = out / source.name
    if (folder / PAIRS_FILE).is_file():
        with as_input_error():
            return read_pairs(folder / PAIRS_FILE)
    digest = zlib.crc32(source.name.encode())
    split = "test" if np.random.default_rng([config.seed, digest]).random() < config.test_share else "train"
    records: list[PairRecord] = []
    with as_input_error():
        scene = source.load()
        photos = _write_photos(scene, folder / "photos")
        (folder / "degraded").mkdir(parents=True, exist_ok=True)
        for strategy in config.strategies:
            rng = np.random.default_rng([config.seed, digest, zlib.crc32(strategy.encode())])
            for pair in MAKERS[strategy](scene, config, rng):
                image = folder / "degraded" / f"{pair.name}.png"
                Image.fromarray(pair.degraded_u8).save(image, compress_level=1)
                records.append(
                    PairRecord(
                        id=f"{source.name}/{pair.name}",
                        split=split,
                        image=image,
                        target_image=photos[pair.target],
                        ref_image=photos[pair.reference],
                        prompt=PROMPT,
                    )
                )
        write_pairs(folder / PAIRS_FILE, records)
    return records


def write_all_pairs(out: Path, records: Sequence[PairRecord]) -> Path:
    """Write the file that names the pairs of all scenes; returns its path."""
    with as_input_error():
        write_pairs(out / PAIRS_FILE, records)
    return out / PAIRS_FILE


def _write_photos(scene: Scene, folder: Path) -> dict[str, Path]:
    photos = {}
    for view in scene.views:
        path = folder / f"{view.name.rsplit('.', 1)[0]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.rgb_u8).save(path, compress_level=1)
        photos[view.name] = path
    return photos
