"""Make the pairs of one scene in a folder, which is there completely or not at all."""

import dataclasses
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from difix3d.errors import InputError, as_input_error
from difix3d.pairs.config import PROMPT, PairsConfig
from difix3d.pairs.corrupted import corrupted_pairs
from difix3d.pairs.cross import cross_pairs
from difix3d.pairs.cycle import cycle_pairs
from difix3d.pairs.few import few_pairs
from difix3d.pairs.filters import PairFilter, psnr_u8
from difix3d.pairs.generated import GeneratedPair
from difix3d.pairs.sources import CapturedSource, SceneSource
from difix3d.pairs.sparse import sparse_pairs
from difix3d.pairs.split import name_digest, scene_split
from difix3d.pairs.underfit import underfit_pairs
from difix_model.pairs import PairRecord, read_pairs, write_pairs
from output_files import check_inputs_kept, check_links, flush, flush_alone, output_names, write_text_whole
from splat_recon.scene.scene import Scene
from splat_recon.threads import one_torch_thread

logger = logging.getLogger(__name__)

PAIRS_FILE = "pairs.json"
CONFIG_FILE = "config.json"
SCENE_FILE = "scene.json"
PARTIAL = ".partial-"
"""Part of the name of a folder that is being written."""

MakePairs = Callable[[Scene, PairsConfig, np.random.Generator], Iterator[GeneratedPair]]
MAKERS: dict[str, MakePairs] = {
    "sparse": sparse_pairs,
    "cycle": cycle_pairs,
    "cross": cross_pairs,
    "underfit": underfit_pairs,
    "few": few_pairs,
    "corrupted": corrupted_pairs,
}


def open_pairs_folder(out: Path, config: PairsConfig) -> None:
    """Create the folder, or check that what is in it was made with the same settings; remove what was left half done.

    Raises:
        InputError: It holds pairs of other settings, or cannot be written.
    """
    path = out / CONFIG_FILE
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    with as_input_error():
        if path.exists():
            _check_settings(path, settings)
        else:
            out.mkdir(parents=True, exist_ok=True)
            write_text_whole(path, json.dumps(settings, indent=2) + "\n")
        remove_leftovers(out)


def remove_leftovers(out: Path) -> None:
    """Remove what interrupted processes have left in the folder."""
    for leftover in out.glob(f".*{PARTIAL}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def is_finished(out: Path, name: str) -> bool:
    """Whether the pairs of a scene are there."""
    return (out / name / SCENE_FILE).is_file()


def finished_scenes(out: Path) -> list[str]:
    """Names of the scenes whose pairs are there, sorted; not of those that are being written."""
    names = (path.parent.name for path in out.glob(f"*/{SCENE_FILE}"))
    return sorted(name for name in names if PARTIAL not in name)


def read_scene_facts(out: Path, name: str) -> dict[str, Any]:
    """What is known about a finished scene's pairs."""
    path = out / name / SCENE_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path} ({error}): delete the folder {path.parent}, to make it again") from error


def make_scene_pairs(source: SceneSource, out: Path, config: PairsConfig) -> list[PairRecord]:
    """Make the pairs of one scene, or read them where they are finished.

    They are made in a folder beside their place, which is renamed when all is written and on the disk: an interrupted
    scene is recreated. torch has one thread meanwhile, so that the bits do not depend on the machine's cores.

    Returns:
        The pairs that were kept, maybe none.
    """
    folder = out / source.name
    check_places([source], out)
    with as_input_error(), one_torch_thread():
        if not is_finished(out, source.name):
            partial = out / f".{source.name}{PARTIAL}{socket.gethostname()}-{os.getpid()}"
            try:
                _write_scene(source, partial, config)
                _move(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return read_pairs(folder / PAIRS_FILE) if read_scene_facts(out, source.name)["pairs"] else []


def check_places(sources: Sequence[SceneSource], out: Path) -> None:
    """Refuse a folder for pairs in which something of the user's would be replaced or mixed with pairs.

    Raises:
        InputError: `out` is a scene's own folder or lies in its photos, one in it has the name of a scene and is no
            folder of pairs, or a folder in it is a link that leads out of it.
    """
    with as_input_error():
        check_links(out)
        for source in sources:
            _check_ours(out / source.name)
            scene = source.folder if isinstance(source, CapturedSource) else None
            if scene is None:
                continue
            if out.exists() and scene.exists() and out.samefile(scene):
                raise InputError(f"{out} is a scene that pairs are made of: choose another --out")
            photos = [path for pattern in ("images*", "masks*", "sparse") for path in scene.glob(pattern)]
            check_inputs_kept([out / source.name / PAIRS_FILE], photos)


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): choose another folder or delete this one") from error
    if found != settings:
        differing = sorted(name for name in {*found, *settings} if found.get(name) != settings.get(name))
        raise InputError(
            f"{path.parent} holds pairs made with other settings ({', '.join(differing)}): choose another folder or "
            "delete it"
        )


def _write_scene(source: SceneSource, folder: Path, config: PairsConfig) -> None:
    scene = source.load()
    split = scene_split(source.name, config)
    photos = _write_photos(scene, folder / "photos")
    (folder / "degraded").mkdir(parents=True)
    pair_filter = PairFilter(scene, config.filters)
    records: list[PairRecord] = []
    pairs: dict[str, dict[str, Any]] = {}
    trained_on: dict[str, list[str]] = {}
    num_made = {}
    for strategy in config.strategies:
        rng = np.random.default_rng([config.seed, name_digest(source.name), name_digest(strategy)])
        num_made[strategy] = 0
        for pair in MAKERS[strategy](scene, config, rng):
            num_made[strategy] += 1
            view = scene.view(pair.target)
            psnr = psnr_u8(pair.degraded_u8, view.rgb_u8, view.mask)
            if pair_filter.reason(pair, psnr) is not None:
                continue
            image = folder / "degraded" / f"{pair.name}.png"
            Image.fromarray(pair.degraded_u8).save(image, compress_level=1)
            pairs[pair.name] = {"strategy": strategy, "training": pair.label, "target": pair.target}
            pairs[pair.name] |= {"reference": pair.reference, "psnr": round(psnr, 3)}
            pairs[pair.name] |= {"coverage": round(pair.coverage, 4)}
            if pair.trained_on:
                trained_on[pair.label] = list(pair.trained_on)
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
    facts = {"name": source.name, "kind": source.kind, "split": split, "num_photos": len(scene.views)}
    facts |= {"num_unregistered": source.num_unregistered(scene), "num_made": num_made}
    facts |= {"left_out": dict(sorted(pair_filter.left_out.items())), "trained_on": trained_on, "pairs": pairs}
    write_pairs(folder / PAIRS_FILE, records)
    (folder / SCENE_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _write_photos(scene: Scene, folder: Path) -> dict[str, Path]:
    photos = {}
    files = output_names(scene.names)
    for view in scene.views:
        path = folder / files[view.name]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.rgb_u8).save(path, compress_level=1)
        photos[view.name] = path
    return photos


def _check_ours(folder: Path) -> None:
    """Refuse to make pairs in the place of a folder that holds something else, such as the scene itself."""
    if folder.exists() and not (folder / SCENE_FILE).is_file():
        foreign = sorted(path.name for path in folder.iterdir())
        if foreign or folder.is_symlink():
            what = f"holds {foreign[0]}" if foreign else "is a link"
            raise InputError(f"{folder} {what}, and is no folder of pairs: choose another --out")


def _move(partial: Path, folder: Path) -> None:
    """Rename a folder when it is on the disk."""
    flush(partial)
    if (folder / SCENE_FILE).is_file():
        return  # Another process was faster, and has made the same.
    _check_ours(folder)
    partial.replace(folder)
    flush_alone(folder.parent)
