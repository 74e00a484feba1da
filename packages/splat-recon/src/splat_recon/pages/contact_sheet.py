"""All scored views on one picture: photo, render and error, the worst first."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from report_pages import beside, headline, shrunk, stacked
from splat_recon.evaluate import Evaluation, ViewScore
from splat_recon.pages.pictures import error_map
from splat_recon.scene.scene import View

CELL_PX = 256
"""Longer side of a picture on the sheet."""

MAX_ROWS = 60
"""Views on a sheet; of more, the worst are shown."""

GAP_PX = 6
"""White space below a view."""


def contact_sheet(
    views: Sequence[View],
    render_of: Callable[[View], UInt8[np.ndarray, "_h _w 3"]],
    scores: Evaluation,
) -> UInt8[np.ndarray, "h w 3"]:
    """Photo | render | error map of each view with its name and scores, sorted by PSNR from the worst.

    Args:
        render_of: Gives the render of a view; asked for one after another, so that not all need be in memory.
        scores: Of `evaluate`.

    Raises:
        ValueError: There is no view.
    """
    if not views:
        raise ValueError("a contact sheet needs at least one view, got none")
    worst_first = sorted(views, key=lambda view: (scores.per_view[view.name].psnr, view.name))
    rows = [_row(view, render_of(view), scores) for view in worst_first[:MAX_ROWS]]
    # Several columns of views keep the sheet from becoming a ribbon.
    num_columns = 1 if len(rows) <= 4 else 2
    per_column = -(-len(rows) // num_columns)
    columns = [stacked(rows[start : start + per_column], 0) for start in range(0, len(rows), per_column)]
    width = sum(column.shape[1] for column in columns) + GAP_PX * (len(columns) - 1)
    shown = f", the worst {len(rows)} shown" if len(rows) < len(views) else ""
    perceptual = "" if scores.lpips is None else f"  LPIPS {scores.lpips:.3f}"
    title = (
        f"{len(views)} views{shown}: PSNR {scores.psnr:.2f} dB  SSIM {scores.ssim:.3f}{_flip(scores)}{perceptual}"
        "   (photo | render | error)"
    )
    height = max(column.shape[0] for column in columns)
    parts = []
    for column in columns:
        below = ((0, height - column.shape[0]), (0, GAP_PX), (0, 0))
        parts.append(np.pad(column, below, constant_values=255))
    return np.concatenate([headline(title, width), np.concatenate(parts, axis=1)[:, :width]])


def _row(view: View, render_u8: np.ndarray, scores: Evaluation) -> np.ndarray:
    score = scores.per_view[view.name]
    photo_u8 = view.rgb_u8
    error_u8 = error_map(render_u8, photo_u8)
    if view.mask is not None:
        # Nothing is scored there: the error has no meaning.
        error_u8 = np.where(view.mask[..., None], error_u8, np.uint8(128))
    row = beside([shrunk(picture, CELL_PX) for picture in (photo_u8, render_u8, error_u8)])
    perceptual = "" if score.lpips is None else f"  LPIPS {score.lpips:.3f}"
    text = f"{view.name}   PSNR {score.psnr:.2f} dB  SSIM {score.ssim:.3f}{_flip(score)}{perceptual}"
    return np.concatenate([headline(text, row.shape[1]), row, np.full((GAP_PX, row.shape[1], 3), 255, np.uint8)])


def _flip(scores: Evaluation | ViewScore) -> str:
    return "" if scores.flip is None else f"  FLIP {scores.flip:.3f}"
