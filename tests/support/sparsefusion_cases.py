"""SparseFusion's reference data and small made-up inputs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from sparsefusion import Cameras

VARIABLE = "SPARSEFUSION_REFERENCE_DATA"
DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "golden_sparsefusion"


@dataclass(frozen=True)
class Recording:
    """One file of the reference data: tensors, and metadata parsed as JSON where it is some."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def cameras(self, prefix: str) -> Cameras:
        return Cameras(*(self.tensors[f"{prefix}.{name}"].float() for name in ("R", "T", "f", "c")))

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


class ReferenceData:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> Recording:
        with safe_open(self.folder / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = {key: _parsed(text) for key, text in (file.metadata() or {}).items()}
        return Recording(tensors, metadata)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))


def reference_data() -> ReferenceData:
    """Outputs of the released code on random weights; skips where the folder is absent."""
    folder = Path(os.environ.get(VARIABLE, DEFAULT)).resolve()
    if not folder.is_dir():
        pytest.skip(f"the reference data is absent: set {VARIABLE} to its folder (looked in {folder})")
    return ReferenceData(folder)


def recipe_weights(state: dict[str, Tensor], seed: int, std: float) -> dict[str, Tensor]:
    """Random weights in the order of their names, as the reference data's recipe draws them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name in sorted(state):
        if not state[name].is_floating_point():
            continue
        values = torch.randn(state[name].shape, generator=generator)
        gain = name.endswith(".g") or (name.endswith(".weight") and values.ndim == 1)
        if name.endswith("running_var"):
            drawn[name] = 1 + 0.1 * values.abs()
        elif name.endswith("running_mean"):
            drawn[name] = 0.1 * values
        else:
            drawn[name] = std * values + (1.0 if gain else 0.0)
    return drawn


def worst(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    ours, theirs = ours.detach(), theirs.detach().to(ours.dtype)
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-8))


def ring(count: int = 6, radius: float = 6.0, height: float = 2.0) -> Cameras:
    """Cameras around the origin that look at it."""
    from sparsefusion.cameras import look_at

    angles = torch.arange(count) * 2 * torch.pi / count
    eyes = torch.stack([radius * angles.cos(), torch.full((count,), height), radius * angles.sin()], dim=-1)
    R, T = look_at(eyes, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(R, T, torch.full((count, 2), 2.5), torch.zeros(count, 2))
