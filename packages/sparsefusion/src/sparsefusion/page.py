"""The page that shows a reconstruction: scores, a film, and every view beside its photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report_pages import filled

TITLES = {
    "photo": "photo",
    "nearest_input": "nearest input",
    "inputs_only": "field from the inputs alone",
    "transformer": "transformer (EFT)",
    "diffusion": "diffusion sample of the field",
    "field": "field, full method",
    "alpha": "opacity",
}
"""What pictures are called, in the order in which they are shown."""

MEASURES = {"psnr": ("PSNR (dB)", ".2f"), "ssim": ("SSIM", ".4f"), "flip": ("FLIP", ".4f"), "lpips": ("LPIPS", ".4f")}
"""Columns of the table."""

GROUPS = {"held_out": "held out", "input": "input"}
"""Groups of views."""


def report_page(
    name: str, found: Mapping[str, Any], kinds: Sequence[str], photos: Sequence[tuple[str, str, str]]
) -> str:
    """The page as HTML; pictures are linked relative to it.

    Args:
        name: The object's.
        found: What `Results.metrics` says.
        kinds: Folders of pictures that there are.
        photos: Every view's name, file and group.
    """
    return filled(
        Path(__file__).with_name("report.html"),
        title=name,
        num_inputs=len(found["inputs"]),
        iterations=found["iterations"],
        heads=("views", "picture", *(title for title, _ in MEASURES.values())),
        scores=list(_score_rows(found["scores"])),
        kinds={kind: title for kind, title in TITLES.items() if kind in kinds},
        photos=[(view, file, GROUPS[group]) for view, file, group in photos],
    )


def _score_rows(scores: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, ...]]:
    rows = []
    for group, group_title in GROUPS.items():
        for kind, title in TITLES.items():
            values = scores.get(f"{group}/{kind}")
            if values is not None:
                cells = (
                    "" if values[name] is None else format(values[name], form) for name, (_, form) in MEASURES.items()
                )
                rows.append((group_title, title, *cells))
    return rows
