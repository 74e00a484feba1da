"""The page that shows a run: one HTML file with its pictures, curves and video inside."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from difix3d.loop.novel_views import NovelViews
from difix3d.report.curves import Curves
from difix3d.report.decision import decided
from difix3d.report.facts import RunFacts
from difix3d.report.notes import curves_note, run_notes
from difix3d.report.results import CLEAR_DB, VariantResult, best_variant, final_fix_changes_nothing, verdict
from difix3d.report.variants import VARIANTS
from difix3d.report.what_helped import what_helped
from media_files import read_photo
from output_files import write_text_whole
from report_pages import embedded_image, filled, spread
from splat_recon.io.images import to_u8
from splat_recon.scene.scene import View

MAX_PICTURES = 5
"""Test views that the page shows, evenly spread over all of them."""

MAX_NOVEL = 4
"""Novel views that the page shows."""

MAX_STEREO_PX = 1200
"""Longer side of the picture of depth and confidence, which has six photos of its own."""

MAX_EMBEDDED_VIDEO = 16_000_000
"""Bytes up to which the video goes into the page; a larger one is linked."""

SHOWN = ("plain", "loop", "loop_fixed")
"""Variants that stand beside the photo."""

_PAGE = Path(__file__).with_name("report.html")


def write_report(
    folder: Path,
    facts: RunFacts,
    results: Sequence[VariantResult],
    curves: Curves,
    held_out: Sequence[View],
    captured: Sequence[View],
    *,
    scene_page: str = "",
) -> Path:
    """Write report.html into a run's folder, whose path.mp4 it takes in.

    Args:
        curves: How close both trainings were as they went on.
        scene_page: A page that shows the best splat in 3D, to be shown in this one; empty for none.
    """
    decision = decided(facts, results, curves)
    if not facts.fixed:
        # Without a fixer a final fix changes nothing.
        results = [result for result in results if not result.name.endswith("_fixed")]
    path, stereo = folder / "report.html", folder / "stereo.png"
    page = filled(
        _PAGE,
        title=f"Difix3D: {facts.scene_name}",
        verdict=verdict(results, fixed=facts.fixed, distilled=facts.distilled, held_out=facts.holds_out),
        decision=decision,
        remarks=run_notes(facts, results),
        cards=score_cards(results, against_plain=facts.holds_out),
        side=facts.side,
        scene_page=scene_page,
        helped=what_helped(facts, results),
        picture_heads=["photo", *(VARIANTS[name] for name in _shown(results))],
        shown=_pictures(results, held_out),
        stereo_picture=embedded_image(read_photo(stereo)[0], "stereo", MAX_STEREO_PX) if stereo.is_file() else None,
        curves_note=curves_note(facts),
        curves=curves.svg(facts.round_steps, facts.side),
        figures=_figures(results, against_plain=facts.holds_out),
        novel=_novel(facts.novel, captured),
        novel_note=_novel_note(facts),
        novel_heads=_novel_heads(facts),
        film=_film_note(results, facts),
        video=_video(folder / "path.mp4"),
        settings=facts.settings.flat(),
    )
    write_text_whole(path, page)
    return path


def score_cards(results: Sequence[VariantResult], *, against_plain: bool = True) -> list[dict[str, Any]]:
    """Each variant's scores for a card, and how they differ from plain training's, where that says something."""
    plain = next(result.evaluation for result in results if result.name == "plain")
    best = best_variant(results).name
    cards = []
    for result in results:
        scores = result.evaluation
        kind, gain = ("", "") if result.name == "plain" or not against_plain else _difference(scores.psnr - plain.psnr)
        cards.append(
            {
                "name": VARIANTS[result.name],
                "best": result.name == best,
                "psnr": f"{scores.psnr:.2f}",
                "scores": f"SSIM {scores.ssim:.3f}{_known(', FLIP', scores.flip)}{_known(', LPIPS', scores.lpips)}",
                "kind": kind,
                "gain": gain,
            }
        )
    return cards


def _difference(difference_db: float) -> tuple[str, str]:
    """A gain or a loss, as the style calls it and in words; what is smaller than another seed would move is neither."""
    if abs(difference_db) < CLEAR_DB:
        return "same", "no clear difference"
    return "gain" if difference_db > 0 else "loss", f"{difference_db:+.2f} dB"


def _known(name: str, value: float | None) -> str:
    return "" if value is None else f"{name} {value:.3f}"


def _shown(results: Sequence[VariantResult]) -> list[str]:
    names = {result.name for result in results}
    return [name for name in SHOWN if name in names]


def _pictures(results: Sequence[VariantResult], held_out: Sequence[View]) -> list[list[tuple[Markup, str]]]:
    by_name = {result.name: result for result in results}
    shown = _shown(results)
    rows = []
    for index in spread(len(held_out), MAX_PICTURES):
        view = held_out[index]
        row: list[tuple[Markup, str]] = [(embedded_image(view.rgb_u8, f"photo {view.name}"), view.name)]
        highest = max(by_name[name].evaluation.per_view[view.name].psnr for name in shown)
        for name in shown:
            score = by_name[name].evaluation.per_view[view.name]
            figures = f"{score.psnr:.2f} dB, SSIM {score.ssim:.3f}{_known(', FLIP', score.flip)}"
            picture = embedded_image(by_name[name].renders_u8[view.name], f"{VARIANTS[name]} {view.name}")
            row.append((picture, Markup("<b>{}</b>").format(figures) if score.psnr == highest else figures))
        rows.append(row)
    return rows


def _figures(results: Sequence[VariantResult], *, against_plain: bool) -> list[tuple[str, ...]]:
    plain = next(result.evaluation for result in results if result.name == "plain")
    rows = []
    for result in results:
        scores = result.evaluation
        wins = sum(score.psnr > plain.per_view[name].psnr for name, score in scores.per_view.items())
        rows.append(
            (
                VARIANTS[result.name],
                f"{scores.psnr:.2f}",
                "" if result.name == "plain" or not against_plain else f"{scores.psnr - plain.psnr:+.2f}",
                f"{scores.ssim:.4f}",
                "–" if scores.flip is None else f"{scores.flip:.4f}",
                "–" if scores.lpips is None else f"{scores.lpips:.4f}",
                "" if result.name == "plain" or not against_plain else f"{wins} of {len(plain.per_view)}",
                f"{result.num_gaussians:,}",
            )
        )
    return rows


def _novel(novel: NovelViews | None, captured: Sequence[View]) -> list[list[tuple[Markup, str]]]:
    """Rendered, fixed and reference of some novel views; empty where there was none."""
    if novel is None:
        return []
    photos = {view.name: view.rgb_u8 for view in captured}
    rows = []
    for index in spread(len(novel.views), MAX_NOVEL):
        view = novel.views[index]
        covered = float((view.alpha > 0.5).float().mean())
        rows.append(
            [
                (embedded_image(to_u8(view.rendered), "rendered"), f"{covered:.0%} opaque"),
                (embedded_image(to_u8(view.fixed), "fixed"), view.verdict.sentence()),
                (embedded_image(photos[view.reference_name], "reference"), view.reference_name),
            ]
        )
    return rows


def _novel_note(facts: RunFacts) -> str:
    if facts.distilled:
        return "Some of its novel views. What one of the splats shows there alone stands beside what all show together."
    return "Some of its newest round's novel views. They count where the render is opaque."


def _novel_heads(facts: RunFacts) -> tuple[str, str, str]:
    if not facts.distilled:
        return "rendered", "fixed (trained on)", "reference (nearest captured photo)"
    together = "all together, fixed (trained on)" if facts.fixed else "all together (trained on)"
    return "one of the splats", together, "nearest captured photo"


def _film_note(results: Sequence[VariantResult], facts: RunFacts) -> str:
    if not facts.fixed:
        return "Left: plain training. Right: the loop."
    if final_fix_changes_nothing(results):
        return "Left: plain training. Right: the loop, without the final fix, which changes nothing above."
    return "Left: plain training. Right: the loop with final fix."


def _video(path: Path) -> str:
    """Where the film is: in the page, or beside it; empty where there is none."""
    if not path.is_file():
        return ""
    if path.stat().st_size <= MAX_EMBEDDED_VIDEO:
        return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return path.name
