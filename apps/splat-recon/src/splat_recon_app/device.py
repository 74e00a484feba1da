"""Which device a command runs on."""

from __future__ import annotations

import logging

from splat_recon.errors import InputError
from splat_recon_app import cli

logger = logging.getLogger(__name__)


def chosen(device: cli.Device) -> str:
    """Where to compute, "cpu" or "cuda": as asked for, or CUDA where it works. Imports torch.

    Raises:
        InputError: CUDA was asked for and cannot be used.
    """
    import torch

    torch.set_num_threads(1)
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here; use --device cpu")
    from splat_recon.render.rasterizer import make_rasterizer

    try:
        make_rasterizer("cuda")
    except RuntimeError as error:
        if device == "cuda":
            raise InputError(f"--device cuda: {error}") from error
        logger.warning("training on the CPU, because gsplat cannot use the CUDA device: %s", error)
        return "cpu"
    return "cuda"
