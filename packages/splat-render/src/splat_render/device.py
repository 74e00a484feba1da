"""Which device to compute on."""

import logging
from typing import Literal

import torch

from splat_render.errors import InputError
from splat_render.rasterizer import make_rasterizer

logger = logging.getLogger(__name__)


def chosen_device(wanted: Literal["auto", "cpu", "cuda"] = "auto") -> Literal["cpu", "cuda"]:
    """Return the device to train and render on.

    Args:
        wanted: `cuda` insists on a GPU; `auto` takes it where torch sees one and gsplat's rasterizer works on it, and
            logs a warning with the reason where torch sees one that gsplat cannot use.

    Raises:
        InputError: CUDA is asked for and cannot be used; the message holds the real reason.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError("the device cuda was asked for and torch finds none: use cpu or auto")
    try:
        make_rasterizer("cuda")
    except (RuntimeError, ImportError) as error:
        if wanted == "cuda":
            raise InputError(f"the device cuda cannot be used: {error}") from error
        logger.warning("computing on the CPU, because gsplat cannot use the CUDA device: %s", error)
        return "cpu"
    return "cuda"
