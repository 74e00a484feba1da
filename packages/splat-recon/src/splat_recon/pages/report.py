"""The page that shows a run: one HTML file with curves and pictures inside, made from the run folder's files."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from media_files import read_photo
from output_files import write_text_whole
from report_pages import Line, Plot, embedded_image, filled, spread, svg
from splat_recon import run_folder
from splat_recon.config_values import flattened
from splat_recon.errors import InputError
from splat_recon.io.camera_files import read_camera_file
from splat_recon.pages.scene_page import MAX_EMBEDDED_GAUSSIANS, scene_page
from splat_recon.run_folder import RunFolder
from splat_recon.splat_model import SplatModel

MAX_PICTURES = 4
"""Test photos that the page shows."""

PICTURE_PX = 420
"""Longer side of a picture in the page."""

DISTANCES = (("flip", "FLIP"), ("lpips", "LPIPS"))
"""Perceptual distances among the scores, lower is better; None where one was not measured."""

MAX_STEREO_PX = 1200
"""Longer side of the picture of depth and confidence, which has six photos of its own."""

COLOR = "#0b7a75"
"""Of the curves."""

_PAGE = Path(__file__).with_name("report.html")


def write_report(run: RunFolder) -> Path:
    """Write `report.html` from a scored run's settings, history, scores and images.

    Raises:
        InputError: The run has no settings or no scores, or the page cannot be written.
    """
    config = run_folder.read_json(run.config)
    holds_out = run.scores().is_file() or not run.scores("train").is_file()
    side = "test" if holds_out else "training"
    scores = run_folder.read_json(run.scores() if holds_out else run.scores("train"))
    history, evaluations = run.read_metrics(), run_folder.read_evaluations(run)
    scene = Path(str(config.get("settings", {}).get("scene", run.path))).name
    distances = "".join(f", {title} {scores[name]:.3f}" for name, title in DISTANCES if scores.get(name) is not None)
    num_views = len(scores["per_view"])
    page = filled(
        _PAGE,
        title=f"Splats of {scene}",
        verdict=f"{scores['psnr']:.2f} dB PSNR, SSIM {scores['ssim']:.3f}{distances} on {num_views} {side} "
        f"photo{'s' if num_views != 1 else ''}, after {scores['step']:,} steps, with "
        f"{scores['num_gaussians']:,} Gaussians.",
        remarks=_notes(config, scores, run),
        cards=_cards(scores, evaluations),
        shown=_pictures(run, scores),
        scene_page=_scene_page(run, scene),
        measured=_measured(evaluations, side),
        stereo_picture=_stereo(run),
        curves=_curves(history, evaluations, side),
        side=side,
        views=_views(scores),
        times=_times(evaluations),
        settings=flattened({**config.get("settings", {}), **config.get("versions", {})}),
    )
    write_text_whole(run.report, page)
    return run.report


def _notes(config: Mapping[str, Any], scores: Mapping[str, Any], run: RunFolder) -> list[str]:
    settings = config.get("settings", {})
    notes = [f"Preset {settings.get('preset', 'default')}, split {settings.get('split')}."]
    if settings.get("sparse"):
        notes.append(f"Trained on {settings['sparse']} photos only.")
    if settings.get("max_size"):
        notes.append(f"Photos were shrunk to at most {settings['max_size']} pixels; scores are at that size.")
    if settings.get("stereo", "none") != "none":
        notes.append(str(settings["stereo"]))
    if run.cameras.is_file():
        notes.append(f"{len(run_folder.read_json(run.cameras).get('cameras', {}))} photos to learn from.")
    if "color_corrected" in scores:
        aligned = scores["color_corrected"]
        notes.append(f"With colors aligned to each photo: {aligned['psnr']:.2f} dB, SSIM {aligned['ssim']:.3f}.")
    return notes


def _scene_page(run: RunFolder, title: str) -> str:
    """A page that shows the splat in 3D; empty where there is none yet, or it is too large to stand in the report."""
    if not run.point_cloud.is_file():
        return ""
    splats = SplatModel.of_file(run.point_cloud)
    if len(splats.gaussians) > MAX_EMBEDDED_GAUSSIANS:
        return ""
    file = read_camera_file(run.cameras) if run.cameras.is_file() else None
    pairs = () if file is None else zip(file.names, file.cameras, strict=True)
    cameras = {name: splats.near(camera) for name, camera in pairs}
    return scene_page(
        splats.gaussians, cameras, title=title, background=splats.background, near_plane=splats.config.near
    )


def _stereo(run: RunFolder) -> Markup | None:
    """The picture of the stereo start, where there was one."""
    if not run.stereo_picture.is_file():
        return None
    return embedded_image(read_photo(run.stereo_picture)[0], "stereo", MAX_STEREO_PX)


def _cards(scores: Mapping[str, Any], evaluations: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Name, value and unit of each card."""
    cards = [("PSNR", f"{scores['psnr']:.2f}", " dB"), ("SSIM", f"{scores['ssim']:.3f}", "")]
    cards += [(title, f"{scores[name]:.3f}", "") for name, title in DISTANCES if scores.get(name) is not None]
    cards.append(("Gaussians", f"{scores['num_gaussians']:,}", ""))
    if evaluations and evaluations[-1]["seconds"] > 0:
        cards.append(("Training", *_duration(evaluations[-1]["seconds"])))
    return cards


def _duration(seconds: float) -> tuple[str, str]:
    if seconds < 120:
        return f"{seconds:.1f}", " s"
    return (f"{seconds / 60:.1f}", " min") if seconds < 7200 else (f"{seconds / 3600:.1f}", " h")


def _pictures(run: RunFolder, scores: Mapping[str, Any]) -> list[list[tuple[Markup, str]]]:
    """Photo, first and last render of some views; those whose first render was kept come first."""
    names = sorted(scores["per_view"])
    files = scores["pictures"]
    kept = [name for name in names if (run.first_images / files[name]).is_file()] or names
    rows = []
    for index in spread(len(kept), MAX_PICTURES):
        name = kept[index]
        both = _picture(run.images / files[name])
        if both is None:
            continue
        # The evaluation writes the render beside the photo.
        width = both.shape[1] // 2
        first = _picture(run.first_images / files[name])
        figures = f"{scores['per_view'][name]['psnr']:.2f} dB, SSIM {scores['per_view'][name]['ssim']:.3f}"
        photo = embedded_image(np.ascontiguousarray(both[:, width:]), f"photo {name}", PICTURE_PX)
        render = embedded_image(np.ascontiguousarray(both[:, :width]), f"render {name}", PICTURE_PX)
        before = (Markup(), "not kept")
        if first is not None:
            before = (embedded_image(first, f"before {name}", PICTURE_PX), "")
        rows.append([(photo, name), before, (render, figures)])
    return rows


def _picture(path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    try:
        return read_photo(path)[0]
    except InputError:
        return None


def _measured(evaluations: list[dict[str, Any]], side: str) -> str:
    if not evaluations:
        return "PSNR was not measured on the way (--eval-every 0)."
    return f"PSNR is of {evaluations[-1]['num_views']} {side} photos; the loss is of the training photos."


def _curves(history: list[dict[str, Any]], evaluations: list[dict[str, Any]], side: str) -> Markup:
    def line(records: list[dict[str, Any]], key: str) -> list[Line]:
        points = [(record["step"], record[key]) for record in records if key in record]
        return [Line(name="", color=COLOR, points=points)] if points else []

    counts = [*evaluations[:1], *history] if evaluations and evaluations[0]["step"] == 0 else history
    return svg(
        [
            Plot(title=f"PSNR of {side} photos (dB)", lines=line(evaluations, "psnr")),
            Plot(title="Loss", lines=line(history, "loss"), markers=False),
            Plot(title="Gaussians", lines=line(counts, "num_gaussians"), markers=False),
        ]
    )


def _views(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, score in sorted(scores["per_view"].items(), key=lambda item: (item[1]["psnr"], item[0])):
        distances = ("–" if score.get(each) is None else f"{score[each]:.4f}" for each, _ in DISTANCES)
        rows.append((name, f"{score['psnr']:.2f}", f"{score['ssim']:.4f}", *distances))
    return rows


def _times(evaluations: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for before, now in itertools.pairwise(evaluations):
        seconds = now["seconds"] - before["seconds"]
        if seconds <= 0 or now["step"] <= before["step"]:
            continue
        each = seconds / (now["step"] - before["step"])
        rows.append(
            (
                f"{before['step']:,} to {now['step']:,}",
                f"{seconds:.1f} s",
                f"{1000 * each:.1f} ms",
                f"{now['num_gaussians']:,}",
            )
        )
    return rows
