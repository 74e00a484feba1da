"""CO3Dv2 folders as published (Reizenstein et al. 2021), without PyTorch3D and without the co3d package."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from sparsefusion.cameras import Cameras
from sparsefusion.data.sequence import ObjectSequence, crop_and_resize, crop_around, cropped_intrinsics
from sparsefusion.errors import InputError

MIN_MASK_MASS = 1
"""Frames whose masks sum up to no more than this are left out."""

MIN_FRAMES = 11
"""Sequences with fewer frames are left out."""

NUM_TEST_FRAMES = 32
"""Frames of a test sequence, evenly spaced over all that it has."""

Subset = Literal["fewview_dev", "fewview_train"]
"""Which of the published lists of frames is read."""

SPLITS = ("train", "val", "test")
"""The parts of a list, in their order."""


@dataclass(frozen=True)
class _Sequence:
    name: str
    frames: tuple[Mapping[str, Any], ...]


def _read_json(path: Path) -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".jgz" else data)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: name a CO3Dv2 folder that holds a folder for the category") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


class Co3dCategory:
    """The sequences of one category.

    Args:
        root: CO3Dv2 folder.
        subset: Which list of frames is read.
        image_size: Side of the squares that photos become, in pixels.

    Raises:
        InputError: A file is missing or has another form, or no sequence is long enough.
    """

    def __init__(
        self,
        root: Path,
        category: str,
        subset: Subset = "fewview_dev",
        *,
        image_size: int = 256,
    ) -> None:
        self.root, self.category, self.image_size = root, category, image_size
        folder = root / category
        if not folder.is_dir():
            found = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
            raise InputError(f"{root} has no category {category}; it has {', '.join(found[:10]) or 'none'}")
        annotations = _read_json(folder / "frame_annotations.jgz")
        lists = _read_json(folder / "set_lists" / f"set_lists_{subset}.json")
        try:
            frames = {(entry["sequence_name"], int(entry["frame_number"])): entry for entry in annotations}
            wanted = {(entry[0], int(entry[1])) for split in SPLITS for entry in lists.get(split, [])}
            self.sequences = self._group(frames, wanted)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"the annotations in {folder} have another form than CO3Dv2's: {error!r}") from error
        if not self.sequences:
            raise InputError(f"{folder} has no sequence of at least {MIN_FRAMES} frames with masks in {subset}")

    @staticmethod
    def _group(frames: Mapping[Any, Mapping[str, Any]], wanted: set[tuple[str, int]]) -> list[_Sequence]:
        grouped: dict[str, list[Mapping[str, Any]]] = {}
        for key in sorted(set(frames) & wanted):
            entry = frames[key]
            mask = entry.get("mask")
            if mask is not None and (mask.get("mass") or 0) > MIN_MASK_MASS:
                grouped.setdefault(key[0], []).append(entry)
        return [_Sequence(name, tuple(entries)) for name, entries in grouped.items() if len(entries) >= MIN_FRAMES]

    def __len__(self) -> int:
        return len(self.sequences)

    def name(self, index: int) -> str:
        """The published name of a sequence."""
        return self.sequences[index].name

    def read(self, index: int, num_frames: int | None = NUM_TEST_FRAMES) -> ObjectSequence:
        """One sequence.

        Args:
            index: Its index, in the order of names.
            num_frames: Frames to read, evenly spaced; None reads all. A shorter sequence repeats none.

        Raises:
            InputError: The index is too large, or a photo or mask cannot be read.
        """
        if not 0 <= index < len(self.sequences):
            raise InputError(
                f"sequence {index} is not in {self.root / self.category}: it has {len(self.sequences)}, from 0"
            )
        frames = self.sequences[index].frames
        chosen = range(len(frames))
        if num_frames is not None and num_frames < len(frames):
            chosen = np.linspace(0, len(frames) - 1, num_frames).astype(int).tolist()
        return self.read_frames(index, list(chosen))

    def read_frames(self, index: int, chosen: list[int]) -> ObjectSequence:
        """Chosen frames of one sequence, by their places in it."""
        sequence = self.sequences[index]
        parts = [self._read_frame(sequence.frames[at]) for at in chosen]
        rgb, masks, valid, R, T, focal, principal = (torch.stack(part) for part in zip(*parts, strict=True))
        names = tuple(Path(sequence.frames[at]["image"]["path"]).stem for at in chosen)
        return ObjectSequence(sequence.name, rgb, masks, valid, Cameras(R, T, focal, principal), names)

    def _read_image(self, relative: str, mode: str) -> torch.Tensor:
        path = self.root / relative
        try:
            with Image.open(path) as image:
                values = np.asarray(image.convert(mode), dtype=np.float32) / 255
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{path} cannot be read as an image: {error}") from error
        return torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)

    def _read_frame(self, frame: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        image = self._read_image(frame["image"]["path"], "RGB")
        mask = self._read_image(frame["mask"]["path"], "L")
        height, width = image.shape[-2:]
        if mask.shape[-2:] != image.shape[-2:]:
            raise InputError(f"{self.root / frame['mask']['path']} has another size than its photo")
        try:
            crop = crop_around(mask).clamped(height, width)
        except InputError as error:
            raise InputError(f"{self.root / frame['mask']['path']}: {error}") from error
        size = self.image_size
        rgb = crop_and_resize(image, crop, size, "bilinear")
        cut = crop_and_resize(mask, crop, size, "nearest")
        view = frame["viewpoint"]
        half = torch.tensor([width, height], dtype=torch.float32) / 2
        kind = view.get("intrinsics_format", "ndc_norm_image_bounds")
        if kind not in ("ndc_norm_image_bounds", "ndc_isotropic"):
            raise InputError(f"{self.root / self.category} has cameras in an unknown format {kind!r}")
        unit = half if kind == "ndc_norm_image_bounds" else half.min()
        focal = torch.tensor(view["focal_length"], dtype=torch.float32) * unit
        principal = half - torch.tensor(view["principal_point"], dtype=torch.float32) * unit
        focal, principal = cropped_intrinsics(focal, principal, crop, rgb.scale, size)
        R = torch.tensor(view["R"], dtype=torch.float32)
        T = torch.tensor(view["T"], dtype=torch.float32)
        return rgb.values * cut.values, cut.values, rgb.valid, R, T, focal, principal
