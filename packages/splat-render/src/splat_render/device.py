"""Which device to compute on."""

import logging
from pathlib import Path
from typing import Literal

import torch

from splat_render.errors import InputError
from splat_render.rasterizer import make_rasterizer

logger = logging.getLogger(__name__)

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
"""Is there where Linux has loaded NVIDIA's driver."""


def chosen_device(wanted: Literal["auto", "cpu", "cuda"] = "auto") -> Literal["cpu", "cuda"]:
    """Return the device to train and render on.

    Args:
        wanted: `cuda` insists on a GPU; `auto` takes it where torch sees one and gsplat's rasterizer works on it, and
            logs a warning with the reason where torch sees one that gsplat cannot use.

    Raises:
        InputError: CUDA is asked for and cannot be used; the message holds the real reason.
    """
    if wanted == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        if wanted == "auto":
            if torch.version.cuda is not None and NVIDIA_DRIVER.is_file():
                logger.warning(
                    "computing on the CPU: torch is built for CUDA %s and finds no GPU that it can use, though an "
                    "NVIDIA driver is there; CUDA 13 needs driver 580 or newer",
                    torch.version.cuda,
                )
            return "cpu"
        raise InputError("the device cuda was asked for and torch finds none: use cpu or auto")
    try:
        make_rasterizer("cuda")
    except (RuntimeError, ImportError) as error:
        if wanted == "cuda":
            raise InputError(f"the device cuda cannot be used: {error}") from error
        logger.warning("computing on the CPU, because gsplat cannot use the CUDA device: %s", error)
        return "cpu"
    return "cuda"
