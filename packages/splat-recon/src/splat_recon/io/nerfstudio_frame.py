"""The way back from the frame that nerfstudio trains in, as its runs keep it."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from splat_recon.errors import InputError
from splat_recon.io.json_files import read_json_file

DATAPARSER_TRANSFORMS = "dataparser_transforms.json"
"""Where a run of nerfstudio says how it moved and scaled the data."""

logger = logging.getLogger(__name__)


def colmap_from_nerfstudio(path: Path) -> Float64[np.ndarray, "4 4"]:
    """The similarity from a file's frame to COLMAP's, by the `dataparser_transforms.json` beside it.

    nerfstudio moves the data by "transform" (3x4, which includes how its importer turned COLMAP's world), then scales.

    Returns:
        The identity where nothing lies beside it: the file is taken to be in COLMAP's frame.

    Raises:
        InputError: What lies beside it is not what nerfstudio writes.
    """
    file = path.parent / DATAPARSER_TRANSFORMS
    if not file.is_file():
        return np.eye(4)
    content = read_json_file(file)
    try:
        T_moved_colmap = np.eye(4)
        T_moved_colmap[:3] = np.array(content["transform"], dtype=np.float64)
        T_file_colmap = np.diag([*3 * [float(content["scale"])], 1.0]) @ T_moved_colmap
        T_colmap_file = np.linalg.inv(T_file_colmap)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, np.linalg.LinAlgError) as error:
        raise InputError(f"{file} is not what nerfstudio writes ({error}): take it from the run, or away") from error
    if not np.isfinite(T_colmap_file).all():
        raise InputError(f"{file} holds numbers that are not finite: take it from the run, or away")
    logger.info("%s is taken from nerfstudio's frame to COLMAP's by the %s beside it", path.name, file.name)
    return T_colmap_file
