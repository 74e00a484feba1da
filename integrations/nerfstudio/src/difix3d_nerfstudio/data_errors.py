"""What nerfstudio says of data that it cannot read, in one sentence that names the fix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from difix3d_nerfstudio.errors import InputError


@contextmanager
def clear_data_errors(config: Any) -> Iterator[None]:
    """Turn the errors of nerfstudio's data parsers that users meet into sentences.

    Args:
        config: The pipeline's config; its data folder is named.

    Raises:
        InputError: Something inside the block could not read the data.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(_missing_file(Path(error.filename or str(error)))) from error
    except AssertionError as error:
        if "Data directory" in str(error):
            raise InputError(f"there is no folder or file {_data(config)}: give --data") from error
        raise
    except ValueError as error:
        if "train/eval in its name" in str(error):
            raise InputError(
                f'{_data(config)}: --eval-mode filename takes photos with "train" in their file name for training and '
                'those with "eval" for evaluation, and at least one photo has neither: rename them, or give '
                "--eval-mode fraction"
            ) from error
        raise
    except RuntimeError as error:
        if "filenames for split" in str(error):
            raise InputError(
                f"{_data(config)}: {error} The lists train_filenames, val_filenames and test_filenames in "
                "transforms.json override --eval-mode: complete them, or take them out"
            ) from error
        raise


def _data(config: Any) -> str:
    return str(getattr(config.datamanager, "data", None) or getattr(config.datamanager.dataparser, "data", "the data"))


def _missing_file(path: Path) -> str:
    folder = next((part for part in path.parts if re.fullmatch(r"images_\d+", part)), None)
    if folder is None:
        return f"there is no file {path}: --data names a folder with transforms.json, or give the colmap data parser"
    factor = folder.removeprefix("images_")
    return (
        f"there is no file {path}: --downscale-factor {factor} reads photos that are already that small from "
        f"{folder}/, which ns-process-data makes; without it give --downscale-factor 1"
    )
