"""The page that shows a run: one HTML file with its pictures, curves and video inside."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from difix3d.loop.novel_views import NovelViews
from difix3d.report.curves import Curves
from difix3d.report.decision import decided
from difix3d.report.facts import RunFacts
from difix3d.report.notes import curves_note, run_notes
from difix3d.report.results import CLEAR_DB, VariantResult, best_variant, final_fix_changes_nothing, verdict
from difix3d.report.variants import VARIANTS
from difix3d.report.what_helped import what_helped
from output_files import write_text_whole
from splat_recon.io.images import read_photo, to_u8
from splat_recon.pages.html_page import embedded_image, filled, settings_table, spread
from splat_recon.pages.scene_page import embedded_scene
from splat_recon.scene.scene import View

MAX_PICTURES = 5
"""Held-out views that the page shows, evenly spread over all of them."""

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
        folder: Of the run.
        facts: Of the run.
        results: All variants.
        curves: How close both trainings were as they went on.
        held_out: Photos that no training saw.
        captured: Photos that were trained on.
        scene_page: A page that shows the best splat in 3D, to be shown in this one; empty for none.

    Returns:
        The path of the report.
    """
    decision = decided(facts, results, curves)
    if not facts.fixed:
        # Without a fixer a final fix changes nothing.
        results = [result for result in results if not result.name.endswith("_fixed")]
    parts = {
        "title": html.escape(f"Difix3D: {facts.scene_name}"),
        "verdict": html.escape(
            verdict(results, fixed=facts.fixed, distilled=facts.distilled, held_out=facts.holds_out)
        ),
        "decision": html.escape(decision.take),
        "helps_most": html.escape(decision.helps_most),
        "scene": embedded_scene(scene_page, "best.ply"),
        "notes": "".join(f"<li>{html.escape(note)}</li>" for note in run_notes(facts, results)),
        "helped": _helped(facts, results),
        "cards": score_cards(results, against_plain=facts.holds_out),
        "shown": "held-out" if facts.holds_out else "training",
        "pictures": _pictures(results, held_out),
        "stereo": _stereo(folder),
        "curves_note": html.escape(curves_note(facts)),
        "curves": curves.svg(facts.round_steps),
        "table": _table(results, against_plain=facts.holds_out),
        "novel": _novel(facts.novel, captured),
        "film": _film_note(results, facts),
        "video": _video(folder / "path.mp4"),
        "settings": settings_table(facts.settings.to_dict()),
    }
    path = folder / "report.html"
    write_text_whole(path, filled(_PAGE, parts))
    return path


def _stereo(folder: Path) -> str:
    """The section on the stereo start; nothing where there was none."""
    path = folder / "stereo.png"
    if not path.is_file():
        return ""
    picture = embedded_image(read_photo(path)[0], "stereo", MAX_STEREO_PX)
    return (
        "<section><h2>The start by stereo</h2><p>Photo, believed depths from near, bright, to far, dark, and how sure "
        f"each of them is.</p>{picture}</section>"
    )


def _helped(facts: RunFacts, results: Sequence[VariantResult]) -> str:
    """What each part was worth, and what to do next."""
    parts = what_helped(facts, results)
    rows = "".join(
        f'<tr><td>{part.name}</td><td class="words">{html.escape(part.did)}</td>'
        f"<td>{html.escape(part.gain())}</td></tr>"
        for part in parts
    )
    advice = "".join(f"<li>{html.escape(part.advice)}</li>" for part in parts if part.advice)
    head = '<tr><th>part</th><th class="words">what it did</th><th>worth on the held-out photos</th></tr>'
    return f'<table class="numbers">{head}{rows}</table>' + (
        f"<p>What to try next:</p><ul>{advice}</ul>" if advice else ""
    )


def score_cards(results: Sequence[VariantResult], *, against_plain: bool = True) -> str:
    """Each variant's scores on a card, and how they differ from plain training's, where that says something."""
    plain = next(result.evaluation for result in results if result.name == "plain")
    best = best_variant(results).name
    cards = []
    for result in results:
        scores = result.evaluation
        difference = scores.psnr - plain.psnr
        gain = "" if result.name == "plain" or not against_plain else _difference(difference)
        cards.append(
            f'<div class="card{" best" if result.name == best else ""}"><h3>{VARIANTS[result.name]}</h3>'
            f"<p class=big>{scores.psnr:.2f}<small> dB</small></p>"
            f"<p>SSIM {scores.ssim:.3f}{_known(', FLIP', scores.flip)}{_known(', LPIPS', scores.lpips)} {gain}</p>"
            "</div>"
        )
    return "".join(cards)


def _difference(difference_db: float) -> str:
    """A gain or a loss; what is smaller than another seed would move is neither."""
    if abs(difference_db) < CLEAR_DB:
        return '<span class="same">no clear difference</span>'
    return f'<span class="{"gain" if difference_db > 0 else "loss"}">{difference_db:+.2f} dB</span>'


def _known(name: str, value: float | None) -> str:
    return "" if value is None else f"{name} {value:.3f}"


def _pictures(results: Sequence[VariantResult], held_out: Sequence[View]) -> str:
    by_name = {result.name: result for result in results}
    shown = [name for name in SHOWN if name in by_name]
    heads = "".join(f"<th>{head}</th>" for head in ("photo", *(VARIANTS[name] for name in shown)))
    rows = []
    for index in spread(len(held_out), MAX_PICTURES):
        view = held_out[index]
        cells = [f"<td>{embedded_image(view.rgb_u8, f'photo {view.name}')}<p>{html.escape(view.name)}</p></td>"]
        highest = max(by_name[name].evaluation.per_view[view.name].psnr for name in shown)
        for name in shown:
            score = by_name[name].evaluation.per_view[view.name]
            figures = f"{score.psnr:.2f} dB, SSIM {score.ssim:.3f}{_known(', FLIP', score.flip)}"
            figures = f"<b>{figures}</b>" if score.psnr == highest else figures
            picture = embedded_image(by_name[name].renders_u8[view.name], f"{VARIANTS[name]} {view.name}")
            cells.append(f"<td>{picture}<p>{figures}</p></td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table class="pictures"><tr>{heads}</tr>{"".join(rows)}</table>'


def _table(results: Sequence[VariantResult], *, against_plain: bool) -> str:
    plain = next(result.evaluation for result in results if result.name == "plain")
    rows = []
    for result in results:
        scores = result.evaluation
        wins = sum(score.psnr > plain.per_view[name].psnr for name, score in scores.per_view.items())
        cells = (
            VARIANTS[result.name],
            f"{scores.psnr:.2f}",
            "" if result.name == "plain" or not against_plain else f"{scores.psnr - plain.psnr:+.2f}",
            f"{scores.ssim:.4f}",
            "&ndash;" if scores.flip is None else f"{scores.flip:.4f}",
            "&ndash;" if scores.lpips is None else f"{scores.lpips:.4f}",
            "" if result.name == "plain" or not against_plain else f"{wins} of {len(plain.per_view)}",
            f"{result.num_gaussians:,}",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ("variant", "PSNR (dB)", "against plain", "SSIM", "FLIP", "LPIPS", "views better than plain", "Gaussians")
    return f'<table class="numbers"><tr>{"".join(f"<th>{head}</th>" for head in heads)}</tr>{"".join(rows)}</table>'


def _novel(novel: NovelViews | None, captured: Sequence[View]) -> str:
    if novel is None:
        return "<p>There was none.</p>"
    photos = {view.name: view.rgb_u8 for view in captured}
    rows = []
    for index in spread(len(novel.views), MAX_NOVEL):
        view = novel.views[index]
        covered = float((view.alpha > 0.5).float().mean())
        rows.append(
            f"<tr><td>{embedded_image(to_u8(view.rendered), 'rendered')}<p>{covered:.0%} opaque</p></td>"
            f"<td>{embedded_image(to_u8(view.fixed), 'fixed')}"
            f"<p>{html.escape(view.verdict.sentence())}</p></td>"
            f"<td>{embedded_image(photos[view.reference_name], 'reference')}"
            f"<p>{html.escape(view.reference_name)}</p></td></tr>"
        )
    heads = "<tr><th>rendered</th><th>fixed (trained on)</th><th>reference (nearest captured photo)</th></tr>"
    return f'<table class="pictures">{heads}{"".join(rows)}</table>'


def _film_note(results: Sequence[VariantResult], facts: RunFacts) -> str:
    if not facts.fixed:
        return "Left: plain training. Right: progressive loop."
    if final_fix_changes_nothing(results):
        return "Left: plain training. Right: progressive loop, without the final fix, which changes nothing above."
    return "Left: plain training. Right: progressive loop with final fix."


def _video(path: Path) -> str:
    if not path.is_file():
        return "<p>There is none.</p>"
    source = path.name
    if path.stat().st_size <= MAX_EMBEDDED_VIDEO:
        source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return f'<video controls loop muted autoplay playsinline src="{source}"></video>'
