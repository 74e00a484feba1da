"""Pictures of a run: what was rendered beside what it should be."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from difix3d.evaluate import VariantResult
from difix3d.novel_views import NovelViews
from splat_recon.io.images import to_u8
from splat_recon.scene.scene import View

GAP_PX = 4
"""White space between two pictures that stand side by side."""


def write_comparison(folder: Path, held_out: Sequence[View], results: Sequence[VariantResult]) -> None:
    """Write held-out photos and every variant's renders as PNG, one folder each."""
    for view in held_out:
        _write(folder / "photo" / file_name(view.name), view.rgb_u8)
        for result in results:
            _write(folder / result.name / file_name(view.name), result.renders_u8[view.name])


def write_novel_views(folder: Path, novel: NovelViews, captured: Sequence[View]) -> None:
    """Write a round's novel views: rendered, fixed and reference side by side. Nothing reads them back."""
    photos = {view.name: view.rgb_u8 for view in captured}
    for index, view in enumerate(novel.views):
        row = beside([to_u8(view.rendered), to_u8(view.fixed), photos[view.reference_name]])
        _write(folder / f"round_{novel.round_index:02d}" / f"{index:03d}.png", row)


def labelled_pair(
    left: Float[Tensor, "h w 3"], right: Float[Tensor, "h w 3"], labels: tuple[str, str]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Two pictures side by side, each with its name in the lower left corner; sides are even, as video wants them."""
    picture = Image.fromarray(beside([to_u8(left), to_u8(right)]))
    draw = ImageDraw.Draw(picture)
    for label, x in zip(labels, (0, left.shape[1] + GAP_PX), strict=True):
        corner = (x + 6, picture.height - 6)
        draw.text(corner, label, fill="white", anchor="lb", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)[: picture.height // 2 * 2, : picture.width // 2 * 2]


def beside(pictures_u8: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures side by side on white, scaled to the height of the first."""
    height = pictures_u8[0].shape[0]
    parts = []
    for picture_u8 in pictures_u8:
        if picture_u8.shape[0] != height:
            width = max(1, round(picture_u8.shape[1] * height / picture_u8.shape[0]))
            picture_u8 = np.asarray(Image.fromarray(picture_u8).resize((width, height), Image.Resampling.LANCZOS))
        parts += [picture_u8, np.full((height, GAP_PX, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def file_name(view_name: str) -> str:
    """A PNG's name for a view, whose own name may have folders and any ending."""
    return re.sub(r"[^\w.-]", "_", str(Path(view_name).with_suffix(""))) + ".png"


def _write(path: Path, picture_u8: UInt8[np.ndarray, "h w 3"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture_u8).save(path)
