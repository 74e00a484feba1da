"""What came of many scenes: one JSON file and one page with a row for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from difix3d.queue.scene_task import RunOutcome, SceneTask
from difix3d.report.variants import VARIANTS
from difix3d.run.fixing_time import TIME_FILE
from output_files import write_text_whole
from report_pages import filled

SUMMARY = "summary.json"
PAGE = "summary.html"

MAX_SAID = 200
"""Characters of an error on the page; all of it is in the JSON file."""

_TEMPLATE = Path(__file__).with_name("summary.html")


def write_summary(out: Path, tasks: Sequence[SceneTask], outcomes: Mapping[str, RunOutcome]) -> dict[str, Any]:
    """Write both files, whole or not at all, from what the runs' folders hold now.

    Returns:
        The content of the JSON file.
    """
    rows = [_row(task, outcomes.get(task.name)) for task in tasks]
    content = {
        "num_scenes": len(rows),
        "num_finished": sum(row["state"] == "finished" for row in rows),
        "num_failed": sum(row["state"] == "failed" for row in rows),
        "means": _means(rows),
        "scenes": rows,
    }
    write_text_whole(out / SUMMARY, json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_text_whole(out / PAGE, _page(content, tasks))
    return content


def _row(task: SceneTask, outcome: RunOutcome | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": task.name, "folder": task.folder.name, "state": "waiting", "error": None}
    metrics = task.folder / "metrics.json"
    if outcome is not None and outcome.error is not None:
        row |= {"state": "failed", "error": outcome.error}
    elif metrics.is_file() and (task.folder / "report.html").is_file():
        values = json.loads(metrics.read_text(encoding="utf-8"))
        variants = {
            name: {key: scores.get(key) for key in ("psnr", "ssim", "lpips", "flip")}
            for name, scores in values["variants"].items()
        }
        row |= {"state": "finished", "best_variant": values["best_variant"], "variants": variants}
        row["fixing_fraction"] = _fixing_fraction(task.folder / TIME_FILE)
    elif (task.folder / "config.json").is_file():
        row["state"] = "unfinished"
    return row


def _fixing_fraction(path: Path) -> float | None:
    if not path.is_file():
        return None
    return float(json.loads(path.read_text(encoding="utf-8"))["fixing_fraction"])


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean scores over the finished scenes, each scene weighing the same; LPIPS only where every scene has it."""
    finished = [row["variants"] for row in rows if row["state"] == "finished"]
    means: dict[str, dict[str, float]] = {}
    for name in VARIANTS:
        for key in ("psnr", "ssim", "lpips", "flip"):
            values = [variants[name].get(key) for variants in finished if name in variants]
            if values and len(values) == len(finished) and None not in values:
                means.setdefault(name, {})[key] = sum(values) / len(values)
    return means


def _page(content: Mapping[str, Any], tasks: Sequence[SceneTask]) -> str:
    return filled(
        _TEMPLATE,
        title="Difix3D: many scenes",
        verdict=_verdict(content),
        variants=VARIANTS,
        rows=content["scenes"],
        means=content["means"] if content["num_finished"] > 1 else {},
        most=MAX_SAID,
        settings={name: value for name, value in tasks[0].settings.flat().items() if name != "scene"},
    )


def _verdict(content: Mapping[str, Any]) -> str:
    total, finished, failed = content["num_scenes"], content["num_finished"], content["num_failed"]
    sentence = f"{finished} of {total} scenes are finished" + (f", {failed} failed" if failed else "") + "."
    means = content["means"]
    if "plain" in means and "loop" in means:
        gain = means["loop"]["psnr"] - means["plain"]["psnr"]
        finished_rows = [row["variants"] for row in content["scenes"] if row["state"] == "finished"]
        wins = sum(row["loop"]["psnr"] > row["plain"]["psnr"] for row in finished_rows)
        sentence += (
            f" In the mean the loop is at {means['loop']['psnr']:.2f} dB, {gain:+.2f} dB against plain training, and "
            f"ahead in {wins} of {finished}."
        )
    return sentence
