"""What `difix-fix` understands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class FixSettings:
    """Fix a render, a folder of renders, or a video."""

    input: Path
    """An image, a folder of images, or a video."""

    out: Path
    """Where results go: a folder, or for a single image or video a file. Inputs are never overwritten."""

    reference: Path | None = None
    """A photo of the same place from nearby, or a folder: photos named like the images, otherwise as many in the same
    order. For a video one photo, or a folder with one per frame."""

    model: str = "default"
    """Weights: "default" (those that come with the project), a checkpoint folder, a folder in the published layout, a
    hub id such as nvidia/difix_ref, or a model_<step>.pkl of the released trainer. Weights carry their own licences."""

    base: str | None = None
    """Only for a .pkl: what it was trained from, as a folder or hub id (stabilityai/sd-turbo for the released ones)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes CUDA if it is there."""

    strength: float = 1.0
    """Share of the fix, in [0, 1]; below 1 the result is blended with the input."""

    batch_size: int | None = None
    """Images of one size to fix at a time; by default 4 on CUDA and 1 on the CPU."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"strength must be in [0, 1], got {self.strength}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
