"""Scores of several methods as one table in Markdown and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from output_files import write_text_whole
from report_pages import filled
from splat_recon.config_values import flattened

_TEMPLATE = Path(__file__).with_name("scores.html")

COLUMNS = {
    "psnr": ("PSNR (dB)", ".2f"),
    "gain": ("against plain (dB)", "+.2f"),
    "ssim": ("SSIM", ".4f"),
    "flip": ("FLIP", ".4f"),
    "lpips": ("LPIPS", ".4f"),
    "fid": ("FID", ".2f"),
}
"""What a table shows, and how it is written."""

ONLY_WHERE_KNOWN = ("gain", "flip")
"""Columns that are left out where no row has them; the others then say that they are not known."""

CONSISTENT = "consistent pairs"


def write_pages(
    out: Path, name: str, rows: Mapping[str, Mapping[str, Any]], *, title: str, notes: Sequence[str], facts: dict
) -> list[Path]:
    """Write ``name.md`` and ``name.html``.

    Args:
        name: Of both files.
        rows: By method, its scores; `consistency` may be among them, and the scores' `spread`.
        notes: What a reader must know: split, masks, metrics, what is missing.
    """
    heads, cells = _table(rows)
    lines = [
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
        *("| " + " | ".join(row) + " |" for row in cells),
    ]
    markdown = f"# {title}\n\n" + "\n".join(lines) + "\n\n" + "".join(f"- {note}\n" for note in notes)
    page = filled(_TEMPLATE, title=title, remarks=notes, heads=heads, rows=cells, settings=flattened(facts))
    written = [out / f"{name}.md", out / f"{name}.html"]
    for path, text in zip(written, (markdown, page), strict=True):
        write_text_whole(path, text)
    return written


def _table(rows: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    with_consistency = any(row.get("consistency") for row in rows.values())
    columns = {
        key: column
        for key, column in COLUMNS.items()
        if key not in ONLY_WHERE_KNOWN or any(row.get(key) is not None for row in rows.values())
    }
    heads = ["method", *(head for head, _ in columns.values())] + ([CONSISTENT] if with_consistency else [])
    cells = []
    for name, row in rows.items():
        shown = [name]
        for key, (_, form) in columns.items():
            value, spread = row.get(key), row.get("spread", {}).get(key)
            cell = "–" if value is None else format(value, form)
            shown.append(cell if value is None or spread is None else f"{cell} ± {format(spread, form.lstrip('+'))}")
        if with_consistency:
            found = row.get("consistency")
            shown.append("–" if not found else _consistent(found))
        cells.append(shown)
    return heads, cells


def _consistent(found: Mapping[str, Any]) -> str:
    median = found["median_distance"]
    return f"{found['consistent_fraction']:.0%}" + ("" if median is None else f" (median {median:.2f} px)")
