"""Which device a network runs on, and what that device likes."""

from typing import Literal

import torch

from difix_model.errors import InputError

Device = Literal["cpu", "cuda", "mps"]


def chosen_device(wanted: Literal["auto", "cpu", "cuda", "mps"] = "auto") -> Device:
    """Return the device to use: as asked for, or what torch finds, CUDA before Apple's Metal (mps) before the CPU.

    Raises:
        InputError: A device is asked for and absent.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted != "auto" and not present[wanted]:
        raise InputError(f"the device {wanted} was asked for and torch finds none: use cpu or auto")
    if wanted != "auto":
        return wanted
    return "cuda" if present["cuda"] else "mps" if present["mps"] else "cpu"


def prefers_channels_last(device: str | torch.device) -> bool:
    """Tell whether convolutions are faster with the channels as the fastest axis: measured on CPUs, known of CUDA."""
    return torch.device(device).type in ("cpu", "cuda")
