"""Novel views of a round: what training takes from them, and how they are kept in a checkpoint."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.ray_generators import RayGenerator
from PIL import Image

from difix3d_nerfstudio.models import NOVEL


@dataclass(frozen=True)
class NovelView:
    """One fixed view."""

    rgb_u8: np.ndarray
    """What is trained on: ``[h w 3]`` bytes."""

    weight_u8: np.ndarray
    """How much each pixel counts: ``[h w]`` bytes, 255 for one."""

    reference: int
    """Index of the photo that it was fixed with."""


class NovelViews:
    """The views that take part in training.

    Args:
        cameras: Where they are, in the order of `views`; on the CPU.
    """

    def __init__(self, cameras: Cameras, views: Sequence[NovelView], *, device: torch.device | str) -> None:
        self.cameras = cameras.to("cpu")
        self.views = tuple(views)
        self.device = device
        self._rays = RayGenerator(self.cameras.to(device)).to(device)
        sizes = [view.weight_u8.shape for view in self.views]
        self._heights = torch.tensor([height for height, _ in sizes])
        self._widths = torch.tensor([width for _, width in sizes])
        self._references = torch.tensor([view.reference for view in self.views])
        self._starts = torch.tensor(np.cumsum([0, *(height * width for height, width in sizes)])[:-1])
        self._rgb = torch.from_numpy(np.concatenate([view.rgb_u8.reshape(-1, 3) for view in self.views]))
        self._weight = torch.from_numpy(np.concatenate([view.weight_u8.reshape(-1) for view in self.views]))

    def __len__(self) -> int:
        return len(self.views)

    def rays(self, num_rays: int, generator: torch.Generator) -> tuple[RayBundle, dict[str, torch.Tensor]]:
        """Rays at random pixels of random views, and what they should see; views of any sizes go together.

        The rays carry the index of the photo that their view was fixed with, so that they share its appearance, and a
        mark that keeps pose correction away from them.
        """
        view = torch.randint(len(self), (num_rays,), generator=generator)
        y, x = (
            (torch.rand(num_rays, generator=generator, dtype=torch.float64) * size[view]).long()
            for size in (self._heights, self._widths)
        )
        bundle = self._rays(torch.stack([view, y, x], dim=-1).to(self.device))
        bundle.camera_indices = self._references[view].to(self.device)[:, None]
        bundle.metadata[NOVEL] = torch.ones((num_rays, 1), device=self.device)
        pixel = self._starts[view] + y * self._widths[view] + x
        batch = {"image": self._rgb[pixel].float() / 255, "weight": self._weight[pixel].float() / 255}
        return bundle, batch

    def image(self, generator: torch.Generator) -> tuple[Cameras, dict[str, torch.Tensor]]:
        """A random view as a camera and a whole image with a mask of weights, for splats."""
        index = int(torch.randint(len(self), (1,), generator=generator))
        view = self.views[index]
        batch = {
            "image": torch.from_numpy(view.rgb_u8).float() / 255,
            "mask": torch.from_numpy(view.weight_u8).float()[..., None] / 255,
        }
        # nerfstudio resizes cameras in place: it gets a copy.
        return self.cameras[index : index + 1].to(self.device), batch

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: tensors and lists only; images as PNG files in bytes."""
        cameras = self.cameras
        names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height")
        return {
            **{name: getattr(cameras, name).clone() for name in names},
            "references": self._references.clone(),
            "rgb": [_png(view.rgb_u8) for view in self.views],
            "weight": [_png(view.weight_u8) for view in self.views],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, device: torch.device | str) -> NovelViews:
        """The views that `state` described."""
        names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height")
        cameras = Cameras(**{name: state[name] for name in names}, camera_type=CameraType.PERSPECTIVE)
        views = [
            NovelView(_pixels(rgb), _pixels(weight), int(reference))
            for rgb, weight, reference in zip(state["rgb"], state["weight"], state["references"], strict=True)
        ]
        return cls(cameras, views, device=device)

    def joined(self, older: NovelViews | None) -> NovelViews:
        """These views, with older ones before them."""
        if older is None:
            return self
        names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height")
        cameras = Cameras(
            **{name: torch.cat([getattr(older.cameras, name), getattr(self.cameras, name)]) for name in names},
            camera_type=CameraType.PERSPECTIVE,
        )
        return NovelViews(cameras, (*older.views, *self.views), device=self.device)


def _png(pixels: np.ndarray) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _pixels(png: torch.Tensor) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png.cpu().numpy().tobytes())))
