"""One way to open a fixer, with the same defaults wherever one is opened; torch is imported on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from difix_model.gate.config import GateChoice

if TYPE_CHECKING:
    from difix_model.pipeline import DifixPipeline

Precision = Literal["auto", "float32", "bfloat16"]
"""What a network computes in; auto is bfloat16 on a GPU and float32 on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixerConfig:
    """Which weights fix, and how."""

    source: str = "default"
    """Weights: default (those that come with the project), a checkpoint's folder, a file or a hub name."""

    base: str | None = None
    """Only for a .pkl of the released trainer: what it was trained from, as a folder or hub name."""

    precision: Precision = "auto"
    """What the network computes in: float32, bfloat16 (half of the memory, faster on hardware made for it, differs in
    the third digit), or auto: bfloat16 on a GPU, float32 on a CPU."""

    gate: GateChoice = "auto"
    """How much of a fix is let through: auto keeps good renders, checkpoint takes the gate that the weights bring, off
    lets everything through."""

    batch_size: int | None = None
    """Images fixed at a time. None: 4 on a GPU, 1 on a CPU."""

    offload: bool = False
    """With a GPU: keep the network in the CPU's memory until it is moved."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def open_pipeline(config: FixerConfig, *, device: str = "auto") -> DifixPipeline:
    """Load weights in the precision and batch size that suit the device.

    Args:
        config: Which weights, and how.
        device: auto, cpu, or a GPU's name such as cuda; what runs there decides precision and batch size, also where
            the network waits on the CPU.

    Raises:
        InputError: If the device or the weights cannot be used.
    """
    import torch

    from difix_model.device import chosen_device
    from difix_model.pipeline import DifixPipeline

    place = device if device not in ("auto", "cpu", "cuda") else "cuda" if chosen_device(device) == "cuda" else "cpu"
    on_gpu = torch.device(place).type == "cuda"
    precision = ("bfloat16" if on_gpu else "float32") if config.precision == "auto" else config.precision
    pipeline = DifixPipeline.from_pretrained(
        config.source,
        base=config.base,
        device="cpu" if config.offload else place,
        dtype=getattr(torch, precision),
        batch_size=config.batch_size or (4 if on_gpu else 1),
    )
    pipeline.gate = config.gate
    return pipeline
