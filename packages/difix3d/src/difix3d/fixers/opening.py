"""Opening a fixer by name.

The network is imported when one is opened: that takes longer than everything else together, and a run without a fixer
needs none of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from difix3d.fixers.config import AUTO, DEFAULT, NO_FIXER, ViewFixerConfig
from difix3d.fixers.identity import IdentityFixer
from difix_model.opening import open_pipeline

if TYPE_CHECKING:
    from difix3d.fixers.contract import ViewFixer


def open_fixer(config: ViewFixerConfig, *, device: str) -> ViewFixer:
    """The fixer that a config names: `IdentityFixer` for the model `none`, else Difix with these weights.

    Args:
        config: Which weights, and how; `auto` opens the default ones.
        device: Where the network runs: auto (CUDA where torch finds it), or a device's name; with `config.offload` it
            waits on the CPU while nothing is fixed.
    """
    if config.model == NO_FIXER:
        return IdentityFixer()
    import torch

    from difix3d.fixers.difix import DifixFixer, OffloadedFixer
    from difix_model.device import chosen_device

    if device == "auto":
        device = "cuda" if chosen_device() == "cuda" else "cpu"
    offload = config.offload and torch.device(device).type != "cpu"
    config = replace(config, model=DEFAULT) if config.model == AUTO else config
    pipeline = open_pipeline(config, device=device, offload=offload)
    fixer = DifixFixer(pipeline, strength=config.strength)
    return OffloadedFixer(fixer, device) if offload else fixer
