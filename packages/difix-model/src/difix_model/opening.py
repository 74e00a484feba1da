"""One way to open a fixer, with the same defaults wherever one is opened; torch is imported on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from difix_model.gate.config import GateName
from output_files import check_range

if TYPE_CHECKING:
    from difix_model.pipeline import DifixPipeline

Precision = Literal["auto", "float32", "bfloat16"]
"""What a network computes in; auto is bfloat16 on a GPU and float32 on a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixerConfig:
    """Which weights fix, and how."""

    model: str = "default"
    """Weights: default (those that come with the project), the folder of a training run or of one of its checkpoints, a
    folder in the published layout, a hub id such as nvidia/difix_ref, or a model_<step>.pkl of the released trainer.
    Weights carry their own licenses."""

    base: str | None = None
    """Only for a .pkl: what it was trained from, as a folder or hub id (stabilityai/sd-turbo for the released ones)."""

    precision: Precision = "auto"
    """What the network computes in: float32, bfloat16 (half of the memory, faster on hardware made for it, differs in
    the third digit), or auto: bfloat16 on a GPU, float32 on a CPU."""

    gate: GateName = "auto"
    """The gate: how much of a fix is let through. auto keeps good renders and lets through what changes bad ones;
    checkpoint takes the gate that the weights bring, if any; off lets everything through."""

    strength: float = 1.0
    """Fraction of the fix, in [0, 1]."""

    batch_size: int | None = None
    """Images fixed at a time. None: 4 on a GPU, 1 on a CPU."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "batch_size")
        check_range(self, "in [0, 1]", "strength")


def open_pipeline(config: FixerConfig, *, device: str = "auto", offload: bool = False) -> DifixPipeline:
    """Load weights in the precision and batch size that suit the device.

    Args:
        config: Which weights, and how; its strength is for whoever calls the pipeline.
        device: auto, cpu, or a GPU's name such as cuda; what runs there decides precision and batch size, also where
            the network waits on the CPU.
        offload: Keep the network in the CPU's memory until it is moved.

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
        config.model,
        base=config.base,
        device="cpu" if offload else place,
        dtype=getattr(torch, precision),
        batch_size=config.batch_size or (4 if on_gpu else 1),
    )
    pipeline.gate = config.gate
    return pipeline
