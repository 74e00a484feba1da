"""Pictures of a run: what was rendered beside what it should be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from difix3d.loop.novel_views import NovelViews
from difix3d.report.results import VariantResult
from output_files import output_names
from report_pages import beside, labeled
from splat_recon.io.images import to_u8, write_photo
from splat_recon.scene.scene import View


def write_comparison(
    folder: Path, held_out: Sequence[View], results: Sequence[VariantResult], names: Sequence[str]
) -> None:
    """Write test photos and every variant's renders as PNG, one folder each.

    Args:
        names: Names of all views of the scene, of which those of the files are made.
    """
    files = output_names(names, flat=True)
    for view in held_out:
        write_photo(folder / "photo" / files[view.name], view.rgb_u8)
        for result in results:
            write_photo(folder / result.name / files[view.name], result.renders_u8[view.name])


def write_novel_views(folder: Path, novel: NovelViews, captured: Sequence[View]) -> None:
    """Write a round's novel views: rendered, fixed and reference side by side. Nothing reads them back."""
    photos = {view.name: view.rgb_u8 for view in captured}
    for index, view in enumerate(novel.views):
        row = beside([to_u8(view.rendered), to_u8(view.fixed), photos[view.reference_name]])
        write_photo(folder / f"round_{novel.round_index:02d}" / f"{index:03d}.png", row)


def labeled_pair(
    left: Float[Tensor, "h w 3"], right: Float[Tensor, "h w 3"], labels: tuple[str, str]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Two pictures side by side, each with its name in the lower left corner; sides are even, as video wants them."""
    row = beside([labeled(to_u8(picture), label) for picture, label in zip((left, right), labels, strict=True)])
    return row[: row.shape[0] // 2 * 2, : row.shape[1] // 2 * 2]
