"""The data card in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from difix3d.pairs.filters import REASONS
from difix3d.pairs.histogram import bin_names

BAR = 40
"""Length of the longest bar of the histogram in characters."""

MAX_LISTED = 40
"""Scenes of a split that are listed by name; `card.json` has all."""

STRATEGY_WORDS = {
    "sparse": "a splat trained on every nth photo, rendered at held-out ones",
    "cycle": "a splat trained on renders of a shifted trajectory, rendered back at the photos",
    "cross": "a splat trained on one camera (or side of the trajectory), rendered at another",
    "underfit": "a splat stopped early, rendered at test photos",
    "few": "several splats of few photos with all that suits few, one's renders and their median",
    "corrupted": "photos with faults added; no splat",
}

LICENSE = """Take care: a network trained on these pairs has seen the photos. Pairs of generated scenes carry no
rights of others. Pairs of captured scenes carry the license of the photos, of renders as much as of references: what is
under non-commercial or no-derivatives terms, or shows people who did not agree, must not go into weights that are
passed on without those terms. This card does not know the licenses of captured scenes; write them here before you share
anything."""


def card_text(card: Mapping[str, Any], histogram: str) -> str:
    """The card as Markdown.

    Args:
        card: As `card.make_card` gives it.
    """
    parts = [_head(card), _strategies(card), _left_out(card), _degradation(card, histogram), _split(card)]
    parts += [_rules(), f"## Licenses\n\n{LICENSE}"]
    if card["failed"]:
        lines = [f"- `{name}`: {reason}" for name, reason in card["failed"].items()]
        parts.append("## Scenes that failed\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _head(card: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in card["kinds"].items()) or "none"
    text = (
        f"# Pairs of degraded and clean images\n\n{card['num_pairs']} pairs of {card['num_scenes']} scenes ({kinds}), "
        "listed in `pairs.json` with paths relative to it; `card.json` has the figures of this page for programs, "
        "scene by scene, and the settings."
    )
    if card["merged_from"]:
        text += " Merged from " + ", ".join(f"`{folder}`" for folder in card["merged_from"]) + "."
    return text


def _strategies(card: Mapping[str, Any]) -> str:
    rows = [
        f"| {name} | {STRATEGY_WORDS.get(name, '')} | {entry['train']} | {entry['test']} | {entry['mean_psnr']:.2f} |"
        for name, entry in card["strategies"].items()
    ]
    header = "| strategy | what it is | train | test | mean PSNR (dB) |\n|---|---|---:|---:|---:|"
    return "## Strategies\n\n" + "\n".join([header, *rows])


def _left_out(card: Mapping[str, Any]) -> str:
    made = sum(card["num_made"].values())
    rows = [f"| {reason} | {card['left_out'].get(reason, 0)} | {words} |" for reason, words in REASONS.items()]
    limits = {json.dumps(settings["filters"]) for settings in card["settings"]}
    lines = [f"## Left out\n\nOf {made} images made, {sum(card['left_out'].values())} were left out."]
    lines.append("\n".join(["| reason | images | rule |\n|---|---:|---|", *rows]))
    lines.append(f"Photos without a pose in their scene, never used: {card['num_unregistered_photos']}.")
    if len(limits) == 1:
        values = ", ".join(f"`{name}` {value:g}" for name, value in json.loads(limits.pop()).items())
        lines.insert(2, f"The limits: {values}.")
    return "\n\n".join(lines)


def _degradation(card: Mapping[str, Any], histogram: str) -> str:
    bins = [entry["psnr_bins"] for entry in card["strategies"].values()]
    totals = [sum(column) for column in zip(*bins, strict=True)]
    used = [i for i, count in enumerate(totals) if count]
    lines = []
    for i in range(used[0], used[-1] + 1) if used else ():
        bar = "#" * max(round(BAR * totals[i] / max(totals)), 1 if totals[i] else 0)
        lines.append(f"{bin_names()[i]:>12} dB  {totals[i]:6d}  {bar}".rstrip())
    text = "\n".join(["```", *lines, "```"])
    return f"## Degradation\n\nPSNR of the degraded image against its photo:\n\n![Histogram]({histogram})\n\n{text}"


def _split(card: Mapping[str, Any]) -> str:
    lines = [f"## Split\n\n{card['split_rule']}"]
    for split, entry in card["splits"].items():
        names = [f"`{name}`" for name in entry["scenes"][:MAX_LISTED]]
        more = len(entry["scenes"]) - len(names)
        listed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        count = f"{entry['pairs']} pairs of {len(entry['scenes'])} scenes"
        lines.append(f"**{split}**: {count}" + (f": {listed}" if names else ""))
    return "\n\n".join(lines)


def _rules() -> str:
    return (
        "## References\n\nEvery pair names the captured photo whose pose is nearest to the target's: distance of the "
        "camera centers in scene extents plus angle in radians, among the photos that the splat was trained on "
        "(`cycle`: that the first splat was trained on), never the target itself. `corrupted` draws among the three "
        "nearest of all photos, so that the distance varies."
    )
