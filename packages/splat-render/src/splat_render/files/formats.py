"""Splat files by their endings: one place that knows which format a name asks for."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from splat_render.errors import InputError
from splat_render.files import compressed_ply, ply, splat, spz
from splat_render.files.background import BACKGROUND, Background
from splat_render.files.folders import ENDINGS, Which, splat_file
from splat_render.files.near_plane import near_comments, near_in
from splat_render.files.world_offset import FAR, OFFSET, ZERO, Offset, added, offset_of
from splat_render.gaussians import Gaussians

HEADER_BYTES = 2**16
"""A PLY file's header ends within so many."""

WORDLESS = (".spz", ".splat")
"""Endings of formats that cannot say more than Gaussians: files beside them do."""

MIP_COMMENT = "SplatRenderMode: mip"
"""Line in a PLY header by which tools say that splats are made for antialiased rendering."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatFile:
    """What a splat file holds."""

    gaussians: Gaussians
    """On the CPU, in the frame of the file; SPZ's axes are turned to COLMAP's."""

    antialiased: bool = False
    """Whether the file says that they are made for antialiased rendering."""

    offset: Offset = ZERO
    """What to add to their positions for the world's coordinates; zero unless the world's origin is far away."""

    background: Background | None = None
    """The color behind them, sRGB in [0, 1]; None where the file does not say."""

    near_plane: float | None = None
    """The nearest depth at which they are to be drawn, in the file's units; None where the file does not say, as only
    PLY files can."""


def ending_of(path: Path | str) -> str:
    """Which of `ENDINGS` a file's name has, in lower case."""
    name = Path(path).name.lower()
    for ending in ENDINGS:
        if name.endswith(ending):
            return ending
    raise InputError(f"{path}: the name of a splat file ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def write_splats(path: Path | str, content: SplatFile, *, comments: Sequence[str] = ()) -> None:
    """Write Gaussians in the format that the name asks for.

    Args:
        path: With one of `ENDINGS`.
        content: What to write; `.splat` cannot say how it is to be rendered.

    Raises:
        InputError: The name has another ending, or the file cannot be written.
    """
    ending = ending_of(path)
    lines = [*comments, MIP_COMMENT] if content.antialiased else list(comments)
    lines += [*OFFSET.comments(content.offset), *BACKGROUND.comments(content.background)]
    lines += near_comments(content.near_plane)
    if content.near_plane is not None and ending in WORDLESS:
        logger.warning("%s cannot say from what depth on it is to be drawn, and shows floaters: PLY files do", path)
    if ending == ".spz":
        # Fixed-point positions: what is far from zero would be rounded to whole units.
        content = near_zero(content)
        spz.write_spz(path, content.gaussians, antialiased=content.antialiased)
    elif ending == ".splat":
        splat.write_splat(path, content.gaussians)
    elif ending == ".compressed.ply":
        compressed_ply.write_compressed_ply(path, content.gaussians, comments=lines)
    else:
        ply.write_ply(path, content.gaussians, comments=lines)
    if ending in WORDLESS:
        OFFSET.write_sidecar(Path(path), content.offset)
        BACKGROUND.write_sidecar(Path(path), content.background)


def read_splats(path: Path | str, which: Which = "best") -> SplatFile:
    """Read Gaussians of any of the formats; whether a PLY file is compressed is found in its header.

    Args:
        path: The file, or the output folder of a training (`folders.newest_splat`).
        which: Of a training that compares two splats, which one.

    Raises:
        InputError: The name has another ending, or the file is missing or not what its name says.
    """
    path = splat_file(Path(path), which)
    ending = ending_of(path)
    if ending == ".spz":
        gaussians, antialiased = spz.read_spz(path)
        return SplatFile(gaussians=gaussians, antialiased=antialiased, **_beside(path))
    if ending == ".splat":
        return SplatFile(gaussians=splat.read_splat(path), **_beside(path))
    data = ply.opened_ply(path)
    antialiased = any(line.strip() == MIP_COMMENT for line in data.comments) or bool(ply.mip_filters(data))
    taken_off = ply.double_offset(data)
    return SplatFile(
        gaussians=ply.gaussians_of(data, path, taken_off=taken_off),
        antialiased=antialiased,
        offset=added(OFFSET.in_comments(data.comments, path) or ZERO, taken_off),
        background=BACKGROUND.in_comments(data.comments, path),
        near_plane=near_in(data.comments, path),
    )


def read_background(path: Path | str) -> Background | None:
    """The background that a splat file names; None where it says nothing, or cannot be read.

    Raises:
        InputError: It is named wrongly, or the name of the file has another ending.
    """
    path = splat_file(Path(path))
    if ending_of(path) in WORDLESS:
        return BACKGROUND.read_sidecar(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError:
        return None
    lines = head.partition(b"end_header")[0].decode("ascii", errors="replace").splitlines()
    comments = [line.removeprefix("comment ") for line in lines if line.startswith("comment ")]
    return BACKGROUND.in_comments(comments, path)


def _beside(path: Path) -> dict[str, Any]:
    """What files beside a splat file of a format without words say."""
    return {"offset": OFFSET.read_sidecar(path) or ZERO, "background": BACKGROUND.read_sidecar(path)}


def near_zero(content: SplatFile, *, far: float = FAR) -> SplatFile:
    """The same splat with positions near zero: what is taken off goes into the offset.

    Args:
        content: A splat anywhere.
        far: So many of its own sizes from zero it is left where it is.
    """
    means = content.gaussians.means
    offset = offset_of(means.detach().cpu().double().numpy(), far=far)
    if offset == ZERO:
        return content
    near = (means.double() - torch.tensor(offset, dtype=torch.float64, device=means.device)).to(means.dtype)
    return replace(content, gaussians=replace(content.gaussians, means=near), offset=added(content.offset, offset))
