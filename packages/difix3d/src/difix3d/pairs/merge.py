"""Join folders of pairs into one file of pairs; images stay where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from difix3d.errors import InputError, as_input_error
from difix3d.pairs.card import CARD_FILE, Card, make_card, psnr_summary, scene_of, write_card
from difix3d.pairs.config import STRATEGIES
from difix3d.pairs.filters import psnr_u8
from difix3d.pairs.make import PAIRS_FILE
from difix_model.pairs import PairRecord, read_pairs, write_pairs

MAX_NAMED = 3
"""Clashes that an error names."""


def merge_pairs(folders: Sequence[Path], out: Path) -> Card:
    """Write one file of pairs and one data card for several folders of pairs.

    Folders without a card (pairs of other makers in the same form) are counted from their images.

    Args:
        folders: Folders with `pairs.json`, two or more.
        out: Folder for `pairs.json` and the card; an earlier result of merging is replaced.

    Raises:
        InputError: A folder cannot be read, two pairs have one name, a scene or a photo would be in both splits, or
            there are other pairs in `out`.
    """
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(f"expected two or more different folders to merge, got {', '.join(map(str, folders))}")
    _check_free(out, folders)
    records = {folder: read_pairs(folder / PAIRS_FILE) for folder in folders}
    _check_names(records)
    _check_split(records)
    scenes: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for folder in folders:
        card = _card_of(folder, records[folder])
        scenes += [scene | {"folder": folder.name} for scene in card["scenes"]]
        settings += card["settings"]
        failed |= card["failed"]
    write_pairs(out / PAIRS_FILE, [record for folder in folders for record in records[folder]])
    made = {scene["name"] for scene in scenes}
    failed = {name: reason for name, reason in failed.items() if name not in made}
    card = make_card(scenes, failed=failed, settings=settings, merged_from=[folder.name for folder in folders])
    write_card(out, card)
    return card


def _check_free(out: Path, folders: Sequence[Path]) -> None:
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise InputError(f"{out} is one of the folders to merge: give another folder")
    if not (out / PAIRS_FILE).exists():
        return
    card = _read_card(out)
    if card is None or not card["merged_from"]:
        raise InputError(f"{out} holds pairs that do not come from merging: give another folder")


def _check_names(records: dict[Path, list[PairRecord]]) -> None:
    owner: dict[str, Path] = {}
    clashes = []
    for folder, items in records.items():
        for record in items:
            if owner.setdefault(record.id, folder) != folder:
                clashes.append(f"{record.id} (in {owner[record.id]} and {folder})")
    if clashes:
        raise InputError(
            f"{len(clashes)} pairs have the name of another: {', '.join(clashes[:MAX_NAMED])}: leave one of the "
            "folders out, or make it with other scenes or strategies"
        )


def _check_split(records: dict[Path, list[PairRecord]]) -> None:
    first: dict[str, tuple[str, Path]] = {}
    problems: dict[str, str] = {}
    for folder, items in records.items():
        for record in items:
            photo = str(record.target_image.resolve())
            for key, what in ((f"scene {scene_of(record)}", "scene"), (f"photo {photo}", "photo")):
                split, where = first.setdefault(key, (record.split, folder))
                if split != record.split:
                    problems.setdefault(key, f"{key} is for {split} in {where}, for {record.split} in {folder}")
                    if what == "scene":
                        break
    if problems:
        raise InputError(
            f"{len(problems)} scenes or photos would be in both splits: "
            f"{'; '.join(list(problems.values())[:MAX_NAMED])}: make one of the folders with the other's split "
            "(same seed and test_fraction, or test_scenes)"
        )


def _read_card(folder: Path) -> Card | None:
    path = folder / CARD_FILE
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _card_of(folder: Path, records: Sequence[PairRecord]) -> Card:
    """The folder's card, or one counted from its images."""
    found = _read_card(folder)
    if found is not None:
        return found
    scenes = []
    for name in sorted({scene_of(record) for record in records}):
        items = [record for record in records if scene_of(record) == name]
        values: dict[str, list[float]] = {}
        for record in items:
            values.setdefault(_strategy_of(record), []).append(_psnr_of(record))
        scenes.append(
            {
                "name": name,
                "kind": "unknown",
                "split": items[0].split,
                "num_photos": len({record.target_image for record in items}),
                "num_unregistered": 0,
                "num_made": {strategy: len(found) for strategy, found in values.items()},
                "left_out": {},
                "pairs": {strategy: psnr_summary(found) for strategy, found in values.items()},
            }
        )
    return make_card(scenes, failed={}, settings=[])


def _strategy_of(record: PairRecord) -> str:
    prefix = record.id.rpartition("/")[2].partition("_")[0]
    return prefix if prefix in STRATEGIES else "unknown"


def _psnr_of(record: PairRecord) -> float:
    """PSNR of a pair's image, brought to the photo's size if it has another."""
    with as_input_error(), Image.open(record.image) as image, Image.open(record.target_image) as photo:
        resized = image.convert("RGB").resize(photo.size, Image.Resampling.BILINEAR)
        return round(psnr_u8(np.asarray(resized), np.asarray(photo.convert("RGB"))), 3)
