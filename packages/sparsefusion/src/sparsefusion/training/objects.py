"""What is trained on: objects with several posed, masked photos each."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from output_files import written_whole
from sparsefusion.cameras import Cameras
from sparsefusion.data.co3d import Co3dCategory
from sparsefusion.data.generated import generated_sequence, scattered_poses
from sparsefusion.data.sequence import ObjectSequence
from sparsefusion.errors import InputError
from sparsefusion.training.config import GeneratedObjectsConfig

OBJECTS_PER_FILE = 50
"""Generated objects are kept on disk in files of so many."""

CO3D_FRAMES = 20
"""Photos of a CO3D sequence that one step sees. Published: 20."""


@runtime_checkable
class TrainingObjects(Protocol):
    """A list of objects."""

    def __len__(self) -> int:
        """Number of objects."""
        ...

    def read(self, index: int, seed: int) -> ObjectSequence:
        """Photos of one object; where it has more than are wanted, the seed decides which."""
        ...


class Co3dObjects:
    """The training sequences of a CO3Dv2 category.

    Args:
        category: Its sequences, read from the list `fewview_train`.
    """

    def __init__(self, category: Co3dCategory, num_frames: int = CO3D_FRAMES) -> None:
        self.category, self.num_frames = category, num_frames

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.category)

    def read(self, index: int, seed: int) -> ObjectSequence:
        """Photos of one sequence, drawn by a seed."""
        count = len(self.category.sequences[index].frames)
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: self.num_frames]
        return self.category.read_frames(index, sorted(chosen.tolist()))


def _u8(values: Tensor) -> UInt8[Tensor, "*shape"]:
    return (values * 255).round().to(torch.uint8)


class PrecastObjects:
    """Generated objects whose views were cast once and lie in a folder.

    Args:
        folder: Of the files; missing ones are made when this object is.
    """

    def __init__(self, folder: Path, config: GeneratedObjectsConfig) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {}
        for first in range(0, config.num_objects, OBJECTS_PER_FILE):
            path = self._path(first)
            if not path.is_file():
                self._cast(first, path)

    def _path(self, first: int) -> Path:
        config = self.config
        name = f"{config.image_size}px_{config.num_views}views_from_{config.first_seed + first:08d}.safetensors"
        return self.folder / name

    def _cast(self, first: int, path: Path) -> None:
        config = self.config
        last = min(first + OBJECTS_PER_FILE, config.num_objects)
        seeds = range(config.first_seed + first, config.first_seed + last)
        made = [
            generated_sequence(seed, image_size=config.image_size, poses=scattered_poses(config.num_views, seed))
            for seed in seeds
        ]
        tensors = {
            "rgb": _u8(torch.stack([one.rgb for one in made])),
            "mask": _u8(torch.stack([one.masks for one in made])),
            "R": torch.stack([one.cameras.R for one in made]),
            "T": torch.stack([one.cameras.T for one in made]),
            "focal": torch.stack([one.cameras.focal for one in made]),
        }
        with written_whole(path) as partial:
            save_file({name: value.contiguous() for name, value in tensors.items()}, partial)

    def __len__(self) -> int:
        """Number of objects."""
        return self.config.num_objects

    def read(self, index: int, seed: int = 0) -> ObjectSequence:
        """All views of one object, whatever the seed."""
        first = index // OBJECTS_PER_FILE * OBJECTS_PER_FILE
        path = self._path(first)
        try:
            if path not in self._files:
                self._files[path] = safe_open(path, "pt")
            file = self._files[path]
            rgb, mask, R, T, focal = (
                file.get_slice(name)[index - first] for name in ("rgb", "mask", "R", "T", "focal")
            )
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read: delete it, and it is made again ({error})") from error
        masks = mask.float() / 255
        cameras = Cameras(R, T, focal, torch.zeros_like(focal))
        names = tuple(f"{view:03d}" for view in range(len(rgb)))
        name = f"generated_{self.config.first_seed + index:03d}"
        return ObjectSequence(name, rgb.float() / 255, masks, torch.ones_like(masks), cameras, names)
