"""Folders that trainings leave: which file in them is the splat. Imports nothing heavy."""

from pathlib import Path
from typing import Literal, get_args

from splat_render.errors import InputError

Which = Literal["best", "plain", "loop"]
"""Of a run that trained two splats, which one: the better of the two, plain training's, or the loop's."""

WHICH: tuple[Which, ...] = get_args(Which)

ENDINGS = (".compressed.ply", ".ply", ".spz", ".splat")
"""Endings of splat files; the longer of two that fit counts."""

RUN_FILE = "point_cloud.ply"
"""A run's export, right in its folder."""


def newest_splat(folder: Path, which: Which = "best") -> Path | None:
    """The splat of a training's folder, or None.

    It is `best.ply`, `plain.ply` or `loop.ply` of a run that compares two; `point_cloud/iteration_N/point_cloud.ply`
    with the largest N, as the 3D Gaussian Splatting code and what was made from it leave it; `point_cloud.ply` right
    there; or else the only splat file in the folder.
    """
    if any((folder / f"{name}.ply").is_file() for name in WHICH):
        chosen = folder / f"{which}.ply"
        return chosen if chosen.is_file() else None
    found = {
        int(number): path
        for path in folder.glob(f"point_cloud/iteration_*/{RUN_FILE}")
        if (number := path.parent.name.rsplit("_", 1)[-1]).isascii() and number.isdigit()
    }
    if found:
        return found[max(found)]
    if (folder / RUN_FILE).is_file():
        return folder / RUN_FILE
    files = [path for path in sorted(folder.iterdir()) if path.name.lower().endswith(ENDINGS) and path.is_file()]
    return files[0] if len(files) == 1 else None


def splat_file(path: Path, which: Which = "best") -> Path:
    """The file to read for a path that names a splat or the folder of a training."""
    if not path.is_dir():
        return path
    found = newest_splat(path, which)
    if found is None:
        raise InputError(
            f"{path} is a folder without a splat ({which}.ply, point_cloud/iteration_*/{RUN_FILE}, {RUN_FILE}, or one "
            "splat file): name the file, or let the training come to its end"
        )
    return found
