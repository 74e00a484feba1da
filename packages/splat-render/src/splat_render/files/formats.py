"""Splat files by their endings: one place that knows which format a name asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splat_render.errors import InputError
from splat_render.files import compressed_ply, ply, splat, spz
from splat_render.gaussians import Gaussians

ENDINGS = (".compressed.ply", ".ply", ".spz", ".splat")
"""Endings of splat files; the longer of two that fit counts."""

MIP_COMMENT = "SplatRenderMode: mip"
"""Line in a PLY header by which tools say that splats are made for antialiased rendering."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatFile:
    """What a splat file holds."""

    gaussians: Gaussians
    """On the CPU, in the frame of the file; SPZ's axes are turned to COLMAP's."""

    antialiased: bool = False
    """Whether the file says that they are made for antialiased rendering."""


def ending_of(path: Path | str) -> str:
    """Which of `ENDINGS` a file's name has, in lower case.

    Raises:
        InputError: It has none of them.
    """
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
        comments: Lines for the header, in formats that have such.

    Raises:
        InputError: The name has another ending, or the file cannot be written.
    """
    ending = ending_of(path)
    lines = [*comments, MIP_COMMENT] if content.antialiased else list(comments)
    if ending == ".spz":
        spz.write_spz(path, content.gaussians, antialiased=content.antialiased)
    elif ending == ".splat":
        splat.write_splat(path, content.gaussians)
    elif ending == ".compressed.ply":
        compressed_ply.write_compressed_ply(path, content.gaussians, comments=lines)
    else:
        ply.write_ply(path, content.gaussians, comments=lines)


def read_splats(path: Path | str) -> SplatFile:
    """Read Gaussians of any of the formats; whether a PLY file is compressed is found in its header.

    Raises:
        InputError: The name has another ending, or the file is missing or not what its name says.
    """
    ending = ending_of(path)
    if ending == ".spz":
        gaussians, antialiased = spz.read_spz(path)
        return SplatFile(gaussians=gaussians, antialiased=antialiased)
    if ending == ".splat":
        return SplatFile(gaussians=splat.read_splat(path))
    data = ply.opened_ply(Path(path))
    antialiased = any(line.strip() == MIP_COMMENT for line in data.comments)
    return SplatFile(gaussians=ply.gaussians_of(data, Path(path)), antialiased=antialiased)
