"""Reference data of the released DiffSplat, and how its files are read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from support.closeness import assert_close_to_largest as assert_close  # noqa: F401

os.environ["HF_HUB_OFFLINE"] = "1"

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "golden_diffsplat"


def reference_folder() -> Path:
    return Path(os.environ.get("DIFFSPLAT_REFERENCE_DATA", DEFAULT)).resolve()


def reference_files(pattern: str) -> list[str]:
    """Names of the files that are there, so that every file of a form is a case; empty where the data is absent."""
    return sorted(path.name for path in reference_folder().glob(pattern))


@dataclass(frozen=True)
class Reference:
    """A file of tensors with its metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def json(self, key: str) -> Any:
        return json.loads(self.metadata[key])


@cache
def read_reference(name: str) -> Reference:
    path = reference_folder() / name
    if not path.is_file():
        pytest.skip(f"{name} is absent: set DIFFSPLAT_REFERENCE_DATA to the folder of DiffSplat's reference data")
    with safe_open(path, framework="pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        return Reference(tensors, opened.metadata() or {})


@pytest.fixture
def reference():
    """Reads one of the reference files, or skips the test with a reason."""
    return read_reference


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield
