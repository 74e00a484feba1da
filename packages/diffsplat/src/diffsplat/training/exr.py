"""OpenEXR files of four channels, by the package `OpenEXR` of the extra `exr`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from diffsplat.errors import InputError

CHANNELS = "RGBA"


def read_exr(path: Path) -> Float32[np.ndarray, "h w c=4"]:
    """The channels R, G, B and A of a file.

    Raises:
        InputError: It cannot be read, lacks a channel, or the extra is not installed.
    """
    try:
        import OpenEXR  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        why = "is an OpenEXR file: pip install 'diffsplat[exr]', or convert it to a PNG of 16 bits per channel"
        raise InputError(f"{path} {why}") from error
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels: Any = file.channels()
            return np.stack([channels[name].pixels for name in CHANNELS], axis=-1).astype(np.float32)
    except KeyError as error:
        raise InputError(f"{path} must hold normals and a depth: it has no channel {error}") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as OpenEXR: {error}") from error
