"""Folders that trainings leave: which file in them is the splat. Imports nothing heavy."""

from pathlib import Path

from splat_render.errors import InputError

RUN_FILE = "point_cloud.ply"
"""A run's export, right in its folder."""


def newest_splat(folder: Path) -> Path | None:
    """The splat of a training's folder, or None.

    It is `point_cloud/iteration_N/point_cloud.ply` with the largest N, as the 3D Gaussian Splatting code and what was
    made from it leave it, or `point_cloud.ply` right there.
    """
    found = {
        int(number): path
        for path in folder.glob(f"point_cloud/iteration_*/{RUN_FILE}")
        if (number := path.parent.name.rsplit("_", 1)[-1]).isascii() and number.isdigit()
    }
    if found:
        return found[max(found)]
    return folder / RUN_FILE if (folder / RUN_FILE).is_file() else None


def splat_file(path: Path) -> Path:
    """The file to read for a path that names a splat or the folder of a training.

    Raises:
        InputError: It is a folder without one.
    """
    if not path.is_dir():
        return path
    found = newest_splat(path)
    if found is None:
        raise InputError(
            f"{path} is a folder without a splat (point_cloud/iteration_*/{RUN_FILE} or {RUN_FILE}): name the file"
        )
    return found
