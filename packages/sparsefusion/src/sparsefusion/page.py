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

MEANINGS = {
    "nearest_input": "the input photo from the most similar side, as it is",
    "inputs_only": "a field that saw nothing but the input photos",
    "transformer": "what the epipolar transformer says of this camera, without any field",
    "diffusion": "what the diffusion model makes of the field's render, noised to the middle of its time",
    "field": "the result: a field distilled from the input photos, the transformer and the diffusion model",
}
"""What pictures are, for a reader who meets them first."""

GROUPS = {"held_out": "held out", "input": "input"}
"""Groups of views."""


def report_page(
    name: str, found: Mapping[str, Any], kinds: Sequence[str], photos: Sequence[tuple[str, str, str]]
) -> str:
    """The page as HTML; pictures are linked relative to it.

    Args:
        found: What `Results.metrics` says.
    """
    scored = _scored(found["scores"])
    return filled(
        Path(__file__).with_name("report.html"),
        title=name,
        num_inputs=len(found["inputs"]),
        iterations=found["iterations"],
        heads=("views", "picture", *(MEASURES[name][0] for name in scored)),
        scores=_score_rows(found["scores"], scored),
        verdict=_verdict(found["scores"]),
        meanings=[(TITLES[kind], meaning) for kind, meaning in MEANINGS.items() if kind in kinds],
        kinds={kind: title for kind, title in TITLES.items() if kind in kinds},
        photos=[(view, file, GROUPS[group]) for view, file, group in photos],
    )


def _scored(scores: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Measures that anything has."""
    return [name for name in MEASURES if any(values[name] is not None for values in scores.values())]


def _score_rows(scores: Mapping[str, Mapping[str, float | None]], measures: Sequence[str]) -> list[tuple[str, ...]]:
    rows = []
    for group, group_title in GROUPS.items():
        for kind, title in TITLES.items():
            values = scores.get(f"{group}/{kind}")
            if values is not None:
                shown = ((values[name], MEASURES[name][1]) for name in measures)
                cells = ("" if value is None else format(value, form) for value, form in shown)
                rows.append((group_title, title, *cells))
    return rows


def _verdict(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    """What came best on the views that were held out; nothing where there is nothing to compare."""
    held_out = {kind: scores[f"held_out/{kind}"] for kind in TITLES if f"held_out/{kind}" in scores}
    if len(held_out) < 2:
        return ""
    parts = []
    for name, sign in (("psnr", 1), ("flip", -1)):
        best = max(held_out, key=lambda kind: sign * (held_out[kind][name] or 0.0))
        title, form = MEASURES[name]
        parts.append(f"best in {title.split(' ')[0]}: {TITLES[best]} ({format(held_out[best][name] or 0.0, form)})")
    return f"On held-out views, {', '.join(parts)}."
