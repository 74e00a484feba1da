"""The weights of a tiny fixer, drawn by chance and the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from difix_model import DifixNetwork, WeightsMetadata, save_checkpoint, tiny_config


def write_tiny_fixer(folder: Path, **metadata: Any) -> Path:
    """Write a checkpoint folder, and return it; fields of `WeightsMetadata` may be given."""
    torch.manual_seed(0)
    network = DifixNetwork(tiny_config())
    embedding = torch.zeros(4, network.config.unet.cross_attention_dim)
    of_itself = WeightsMetadata(**metadata)
    save_checkpoint(folder, network, text_embedding=embedding, prompt="remove degradation", metadata=of_itself)
    return folder
