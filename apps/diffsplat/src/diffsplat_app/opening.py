"""Opening a pipeline as the flags say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commands import Device

if TYPE_CHECKING:
    from diffsplat import DiffSplatPipeline


def opened_pipeline(model: str, device: Device, **options: Any) -> DiffSplatPipeline:
    """Load weights onto a device, in float16 on a GPU; the options are those of `from_pretrained`."""
    import torch

    from diffsplat import DiffSplatPipeline
    from splat_render import chosen_device

    place = chosen_device(device)
    dtype = torch.float16 if place == "cuda" else torch.float32
    return DiffSplatPipeline.from_pretrained(model, device=place, dtype=dtype, **options)
