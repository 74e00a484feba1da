"""Training images on the device that trains: kept there as bytes while there is room, else sent without waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splat_recon.scene.scene import View
from splat_recon.views.view_set import PhotoTrainingView, TrainingView, rgb_from_bytes
from splat_render.upload import uploaded

DEVICE_IMAGE_BYTES = 4 * 2**30
"""Images that are kept on a GPU at most, in bytes; less where a quarter of its free memory is less."""


class ImagesOnDevice:
    """Photos, made images and pixel weights of training views, for one device.

    On CUDA what is looked at first stays there until the budget is used up: views are drawn epoch by epoch, so which
    ones stay does not matter. A photo takes its bytes, a made image its floats. On a CPU nothing is kept.

    Args:
        max_bytes: The budget; None: `DEVICE_IMAGE_BYTES`.
    """

    def __init__(self, device: str, max_bytes: int | None = None) -> None:
        self.device = torch.device(device)
        if max_bytes is None:
            max_bytes = min(DEVICE_IMAGE_BYTES, torch.cuda.mem_get_info(device)[0] // 4) if self._on_cuda else 0
        self.max_bytes = max_bytes
        self._kept: WeakKeyDictionary[Any, dict[str, Tensor | None]] = WeakKeyDictionary()

    @property
    def _on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def num_bytes(self) -> int:
        """Memory of what is kept."""
        return sum(one.nbytes for kept in self._kept.values() for one in kept.values() if one is not None)

    def rgb(self, view: TrainingView) -> Float[Tensor, "h w 3"]:
        """The image to reach, in [0, 1]."""
        if not self._on_cuda:
            return view.rgb_on(self.device)
        if isinstance(view, PhotoTrainingView) and "rgb" not in view.given:
            rgb_u8 = self._brought(view.view, "rgb", lambda: torch.tensor(view.view.rgb_u8))
            assert rgb_u8 is not None
            return rgb_from_bytes(rgb_u8)
        rgb = self._brought(view, "rgb", lambda: view.rgb)
        assert rgb is not None
        return rgb

    def pixel_weight(self, view: TrainingView) -> Float[Tensor, "h w"] | None:
        """How much each pixel counts; None where all count 1."""
        if not self._on_cuda:
            return None if view.pixel_weight is None else view.pixel_weight.to(self.device)
        if isinstance(view, PhotoTrainingView) and "pixel_weight" not in view.given:
            mask = self._brought(view.view, "mask", lambda: _mask(view.view))
            return None if mask is None else mask.to(torch.float32)
        return self._brought(view, "pixel_weight", lambda: view.pixel_weight)

    def _brought(self, owner: Any, name: str, make: Callable[[], Tensor | None]) -> Tensor | None:
        """A tensor of a view on the device, or None where there is none: as kept, or brought, and kept if it fits."""
        kept = self._kept.setdefault(owner, {})
        if name in kept:
            return kept[name]
        values = make()
        if values is not None and values.device.type == "cuda":
            return values
        tensor = None if values is None else uploaded(values, self.device)
        if tensor is None or self.num_bytes + tensor.nbytes <= self.max_bytes:
            kept[name] = tensor
        return tensor


def _mask(view: View) -> Bool[Tensor, "h w"] | None:
    return None if view.mask is None else torch.tensor(view.mask)
