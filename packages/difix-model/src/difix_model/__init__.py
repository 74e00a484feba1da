"""Difix: a single-step diffusion network that cleans up rendered views, and its pipeline.

Public names are loaded on first use, so that importing a configuration does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix_model.compat.released_pipeline import ReleasedPipeline
    from difix_model.config import NetworkConfig, UNetConfig, VaeConfig, tiny_config
    from difix_model.errors import InputError
    from difix_model.formats.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from difix_model.formats.conversion import convert_checkpoint, export_checkpoint
    from difix_model.formats.released import load_released
    from difix_model.gate.config import GateConfig
    from difix_model.gate.verdict import FixVerdict
    from difix_model.masks import FixedImage
    from difix_model.network import DifixNetwork
    from difix_model.opening import FixerConfig, open_pipeline
    from difix_model.pairs import PairRecord, read_pairs, write_pairs
    from difix_model.pipeline import DifixPipeline
    from difix_model.references.choice import ReferenceConfig, choose_references
    from difix_model.text import embed_prompt

_SUBMODULES = {
    "Checkpoint": "formats.checkpoint",
    "load_checkpoint": "formats.checkpoint",
    "save_checkpoint": "formats.checkpoint",
    "NetworkConfig": "config",
    "UNetConfig": "config",
    "VaeConfig": "config",
    "tiny_config": "config",
    "convert_checkpoint": "formats.conversion",
    "export_checkpoint": "formats.conversion",
    "InputError": "errors",
    "GateConfig": "gate.config",
    "FixVerdict": "gate.verdict",
    "FixerConfig": "opening",
    "open_pipeline": "opening",
    "FixedImage": "masks",
    "DifixNetwork": "network",
    "PairRecord": "pairs",
    "read_pairs": "pairs",
    "write_pairs": "pairs",
    "DifixPipeline": "pipeline",
    "ReferenceConfig": "references.choice",
    "choose_references": "references.choice",
    "load_released": "formats.released",
    "ReleasedPipeline": "compat.released_pipeline",
    "embed_prompt": "text",
}

__all__ = [
    "Checkpoint",
    "DifixNetwork",
    "DifixPipeline",
    "FixVerdict",
    "FixedImage",
    "FixerConfig",
    "GateConfig",
    "InputError",
    "NetworkConfig",
    "PairRecord",
    "ReferenceConfig",
    "ReleasedPipeline",
    "UNetConfig",
    "VaeConfig",
    "choose_references",
    "convert_checkpoint",
    "embed_prompt",
    "export_checkpoint",
    "load_checkpoint",
    "load_released",
    "open_pipeline",
    "read_pairs",
    "save_checkpoint",
    "tiny_config",
    "write_pairs",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
