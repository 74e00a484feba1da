"""One object: its photos, masks and cameras, cropped to it and square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sparsefusion.cameras import Cameras, circle_cameras
from sparsefusion.errors import InputError

MASK_THRESHOLD = 0.4
"""Mask values above this count as the object when the crop is chosen."""

CROP_CONTEXT = 0.3
"""The crop is larger than the object by this share of its width and height."""

MIN_CROP = 2.0
"""Smallest side of a crop, in pixels."""


@dataclass(frozen=True)
class ObjectSequence:
    """Photos of one object in the form that the networks take."""

    name: str
    """Where it comes from, for messages and file names."""

    rgb: Float[Tensor, "n 3 s s"]
    """Colors in [0, 1], black outside of the object."""

    masks: Float[Tensor, "n 1 s s"]
    """1 on the object, 0 elsewhere."""

    valid: Float[Tensor, "n 1 s s"]
    """1 where the photo had pixels, 0 on what was padded."""

    cameras: Cameras
    """Cameras in PyTorch3D's convention, in the object's own world."""

    names: tuple[str, ...]
    """A name for each photo."""

    centered: bool = False
    """The object stands at the world's origin, so that cameras around it look there; otherwise as published."""

    def __len__(self) -> int:
        return len(self.rgb)

    def to(self, device: torch.device | str) -> ObjectSequence:
        """The same photos on another device."""
        rgb, masks, valid = (value.to(device) for value in (self.rgb, self.masks, self.valid))
        return replace(self, rgb=rgb, masks=masks, valid=valid, cameras=self.cameras.to(device))

    def circle(self, count: int, *, tilts: Float[Tensor, " count"] | None = None) -> Cameras:
        """Cameras on the circle through its own; see `circle_cameras`."""
        target = torch.zeros(3, device=self.cameras.R.device) if self.centered else None
        return circle_cameras(self.cameras, count, tilts=tilts, target=target)

    def subset(self, indices: Sequence[int]) -> ObjectSequence:
        """The chosen photos."""
        chosen = list(indices)
        return replace(
            self,
            rgb=self.rgb[chosen],
            masks=self.masks[chosen],
            valid=self.valid[chosen],
            cameras=self.cameras[chosen],
            names=tuple(self.names[at] for at in chosen),
        )


@dataclass(frozen=True)
class Crop:
    """A part of a photo, in its pixels; the right and lower borders are not part of it."""

    left: float
    """Left border."""

    top: float
    """Upper border."""

    right: float
    """Right border."""

    bottom: float
    """Lower border."""

    def clamped(self, height: int, width: int) -> Crop:
        """The part within the photo, rounded to whole pixels (halves to even ones)."""

        def at(value: float, most: int) -> float:
            return float(torch.tensor(min(max(value, 0.0), float(most))).round())

        return Crop(at(self.left, width), at(self.top, height), at(self.right, width), at(self.bottom, height))


def crop_around(mask: Float[Tensor, "1 h w"], context: float = CROP_CONTEXT) -> Crop:
    """A box around an object, grown by a share of its sides; not yet clamped to the photo."""
    threshold = MASK_THRESHOLD
    found = mask[0] > threshold
    while not found.any() and threshold > 0:
        threshold -= 0.05
        found = mask[0] > threshold
    if not found.any() or mask.max() <= 0:
        raise InputError("a mask is empty")
    columns, rows = found.any(dim=0).nonzero()[:, 0], found.any(dim=1).nonzero()[:, 0]
    x, y = float(columns[0]), float(rows[0])
    width, height = float(columns[-1]) - x + 1, float(rows[-1]) - y + 1
    left, top = x - width * context / 2, y - height * context / 2
    width, height = max(width * (1 + context), MIN_CROP), max(height * (1 + context), MIN_CROP)
    return Crop(left, top, left + width, top + height)


@dataclass(frozen=True)
class CroppedImage:
    """A crop, resized to a square: its longer side fills it, the rest is padded at the right and below."""

    values: Float[Tensor, "c s s"]
    """The values, zero where padded."""

    valid: Float[Tensor, "1 s s"]
    """1 where there were pixels."""

    scale: float
    """Size of a pixel of the photo in the square."""


def crop_and_resize(image: Float[Tensor, "c h w"], crop: Crop, size: int, mode: str) -> CroppedImage:
    """Cut out a crop (clamped already) and fit it into the upper left of a square.

    Args:
        size: Side of the square, in pixels.
        mode: "bilinear" or "nearest".
    """
    part = image[None, :, int(crop.top) : int(crop.bottom), int(crop.left) : int(crop.right)]
    height, width = part.shape[-2:]
    scale = min(size / height, size / width)
    options = {"align_corners": False} if mode == "bilinear" else {}
    part = functional.interpolate(part, scale_factor=scale, mode=mode, recompute_scale_factor=True, **options)[0]
    values = image.new_zeros(image.shape[0], size, size)
    values[:, : part.shape[1], : part.shape[2]] = part
    valid = image.new_zeros(1, size, size)
    valid[:, : part.shape[1], : part.shape[2]] = 1.0
    return CroppedImage(values, valid, scale)


def cropped_intrinsics(
    focal: Float[Tensor, " 2"], principal: Float[Tensor, " 2"], crop: Crop, scale: float, size: int
) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]:
    """Focal length and principal point in NDC of the square, from pixels of the photo.

    Args:
        focal: Focal lengths in the photo's pixels.
        principal: Principal point in the photo's pixels, from its upper left corner.
    """
    corner = torch.tensor([crop.left, crop.top], dtype=principal.dtype)
    return focal * scale / (size / 2), (size / 2 - (principal - corner) * scale) / (size / 2)
