"""Which device a network runs on."""

from typing import Literal

import torch

from difix_model.errors import InputError


def chosen_device(wanted: Literal["auto", "cpu", "cuda"] = "auto") -> Literal["cpu", "cuda"]:
    """Return the device to use: as asked for, or CUDA where torch finds it.

    Raises:
        InputError: CUDA is asked for and absent.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("the device cuda was asked for and torch finds none: use cpu or auto")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
