"""The data card of a folder of pairs: what is in it, from where, and how degraded it is."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from difix3d.pairs.card_text import card_text
from difix3d.pairs.config import STRATEGIES, PairsConfig
from difix3d.pairs.histogram import draw_histogram, psnr_bins
from difix3d.pairs.make import PAIRS_FILE, finished_scenes, read_scene_facts
from difix3d.pairs.split import RULE
from difix_model.pairs import SPLITS, PairRecord, read_pairs, write_pairs
from output_files import write_text_whole, written_whole

CARD_FILE = "card.json"
TEXT_FILE = "CARD.md"
HISTOGRAM_FILE = "histogram.png"
CARD_FORMAT = 1

Card = dict[str, Any]


def publish_pairs(out: Path, config: PairsConfig, failed: Mapping[str, str]) -> Card:
    """Write the file of pairs and the data card of all finished scenes in a folder, in the order of their names.

    Returns:
        The card. Without any pair only the card is written.
    """
    names = finished_scenes(out)
    facts = [read_scene_facts(out, name) for name in names]
    records = [record for item in facts if item["pairs"] for record in read_pairs(out / item["name"] / PAIRS_FILE)]
    if records:
        write_pairs(out / PAIRS_FILE, records)
    scenes = [scene_entry(item) for item in facts]
    card = make_card(scenes, failed=failed, settings=[json.loads(json.dumps(dataclasses.asdict(config)))])
    write_card(out, card)
    return card


def scene_entry(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says about a scene, from the facts beside its pairs."""
    pairs: dict[str, dict[str, Any]] = {}
    for strategy in sorted({pair["strategy"] for pair in facts["pairs"].values()}):
        values = [pair["psnr"] for pair in facts["pairs"].values() if pair["strategy"] == strategy]
        pairs[strategy] = psnr_summary(values)
    kept = ("name", "kind", "split", "num_photos", "num_unregistered", "num_made", "left_out")
    return {key: facts[key] for key in kept} | {"pairs": pairs}


def psnr_summary(values: Sequence[float]) -> dict[str, Any]:
    """Number, mean and histogram of some PSNRs."""
    mean = round(sum(values) / len(values), 3)
    return {"count": len(values), "mean_psnr": mean, "psnr_bins": psnr_bins(values)}


def make_card(
    scenes: Sequence[Mapping[str, Any]],
    *,
    failed: Mapping[str, str],
    settings: Sequence[Mapping[str, Any]],
    merged_from: Sequence[str] = (),
) -> Card:
    """Add up the scenes.

    Args:
        scenes: Entries as `scene_entry` gives them.
        failed: Scenes that could not be made, with the reason.
    """
    used = {strategy for scene in scenes for strategy in scene["pairs"]}
    strategies = {}
    for strategy in [name for name in (*STRATEGIES, *sorted(used - set(STRATEGIES))) if name in used]:
        parts = [scene["pairs"][strategy] | {"split": scene["split"]} for scene in scenes if strategy in scene["pairs"]]
        count = sum(part["count"] for part in parts)
        strategies[strategy] = {
            "count": count,
            "mean_psnr": round(sum(part["mean_psnr"] * part["count"] for part in parts) / count, 2),
            "psnr_bins": [sum(column) for column in zip(*(part["psnr_bins"] for part in parts), strict=True)],
        } | {split: sum(part["count"] for part in parts if part["split"] == split) for split in SPLITS}
    splits = {
        split: {
            "scenes": sorted({scene["name"] for scene in scenes if scene["split"] == split}),
            "pairs": sum(entry[split] for entry in strategies.values()),
        }
        for split in SPLITS
    }
    return {
        "format": CARD_FORMAT,
        "num_scenes": len({scene["name"] for scene in scenes}),
        "num_pairs": sum(entry["count"] for entry in strategies.values()),
        "kinds": _sum({scene["kind"]: 1} for scene in scenes),
        "splits": splits,
        "split_rule": RULE,
        "strategies": strategies,
        "num_made": _sum(scene["num_made"] for scene in scenes),
        "left_out": _sum(scene["left_out"] for scene in scenes),
        "num_unregistered_photos": sum(scene["num_unregistered"] for scene in scenes),
        "failed": dict(failed),
        "merged_from": list(merged_from),
        "settings": list(settings),
        "scenes": list(scenes),
    }


def write_card(out: Path, card: Card) -> None:
    """Write the card as JSON, as text and as a picture."""
    write_text_whole(out / TEXT_FILE, card_text(card, HISTOGRAM_FILE))
    with written_whole(out / HISTOGRAM_FILE) as partial:
        draw_histogram(partial, {name: entry["psnr_bins"] for name, entry in card["strategies"].items()})
    write_text_whole(out / CARD_FILE, json.dumps(card, indent=1) + "\n")


def scene_of(record: PairRecord) -> str:
    """The scene that a pair belongs to: what stands before the first slash of its name."""
    return record.id.partition("/")[0]


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(sorted(total.items()))
