"""What the weights of the published models take, and whether there is room for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from diffsplat.config import Backbone
from diffsplat.errors import InputError

T5_XXL = 4_762_310_656
CLIP_L = 123_060_480
CLIP_L_PROJECTED = 123_650_304
CLIP_G = 694_659_840


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """Numbers of parameters."""

    denoiser: int
    """Of the multi-view network."""
    gsvae: int
    """Of GSVAE, with its tiny decoder."""
    clip: int = 0
    """Of CLIP's text encoders."""
    t5: int = 0
    """Of T5."""

    def num_bytes(self, per_number: int, *, without_t5: bool = False, offload: bool = False) -> int:
        """Bytes of the weights: all together, or with offloading those of the largest network."""
        parts = [self.denoiser, self.gsvae, self.clip, 0 if without_t5 else self.t5]
        return per_number * (max(parts) if offload else sum(parts))


SIZES: dict[Backbone, ModelSize] = {
    "sd15": ModelSize(denoiser=859_538_244, gsvae=84_902_332, clip=CLIP_L),
    "pas": ModelSize(denoiser=610_883_744, gsvae=84_902_332, t5=T5_XXL),
    "sd35m": ModelSize(denoiser=2_243_208_384, gsvae=85_075_064, clip=CLIP_L_PROJECTED + CLIP_G, t5=T5_XXL),
}
"""The published models, with a text."""


def free_bytes(device: str) -> int:
    """Memory that is free on a device."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return found["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_room(model: Backbone, device: str, dtype: torch.dtype, *, without_t5: bool, offload: bool) -> None:
    """Refuse what cannot fit, before anything is read.

    Raises:
        InputError: The weights alone need more than is free; the sentence says what would fit.
    """
    free = free_bytes(device)
    need = SIZES[model].num_bytes(dtype.itemsize, without_t5=without_t5, offload=offload and device == "cuda")
    if need <= free:
        return
    ways = []
    for name, flags, more in (
        ("--offload", "offload", {"offload": True}),
        ("--precision bfloat16", "half", {}),
        ("--precision bfloat16 --offload", "offload", {"offload": True}),
        ("--precision bfloat16 --without-t5", "t5", {"without_t5": True}),
    ):
        if (flags == "offload" and device != "cuda") or (flags == "t5" and model != "sd35m"):
            continue
        width = 2 if "bfloat16" in name else dtype.itemsize
        settings = {"without_t5": without_t5, "offload": offload and device == "cuda"} | more
        would = SIZES[model].num_bytes(width, **settings)
        if would <= free:
            ways.append(f"{name} ({would / 1e9:.1f} GB)")
    ways += [
        f"--model {other} ({size.num_bytes(2) / 1e9:.1f} GB in half precision)"
        for other, size in SIZES.items()
        if other != model and size.num_bytes(2) <= free
    ]
    fitting = "; what would fit: " + ", ".join(ways[:3]) if ways else "; the embedded --model default always fits"
    raise InputError(
        f"the weights of {model} need {need / 1e9:.1f} GB in {str(dtype).removeprefix('torch.')}, and "
        f"{free / 1e9:.1f} GB are free{fitting}"
    )
