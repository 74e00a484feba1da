"""What trainings see of objects: input views with all their maps, and further views to compare renders with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffsplat.cameras import AZIMUTHS_DEG, canonical_intrinsics, orbit_camera
from diffsplat.render import RenderedViews, rendered
from diffsplat.splat_grids import SplatGrids, activated
from diffsplat.training.config import GeneratedObjectsConfig
from synthetic_objects import ObjectConfig, intrinsics, ray_cast, sample_object

TENSORS = ("rgb", "mask", "normal", "coord", "depth", "T_world_cam", "fxfycxcy")
"""The fields of `ObjectViews` that are tensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectViews:
    """Views of `b` objects; the first `NUM_INPUT` of the `v` are the networks' input."""

    rgb: Float[Tensor, "b v 3 h w"]
    """sRGB over white."""
    mask: Float[Tensor, "b v 1 h w"]
    """Share of the pixel that the object covers."""
    normal: Float[Tensor, "b i 3 h w"]
    """Normals of the input views as colors, over white."""
    coord: Float[Tensor, "b i 3 h w"]
    """World coordinates of the input views as colors of the cube [-1, 1], over white."""
    depth: Float[Tensor, "b i 1 h w"]
    """z-depth of the input views; 0 where there is nothing."""
    T_world_cam: Float[Tensor, "b v 4 4"]
    """OpenCV cameras, view 0 at azimuth 0."""
    fxfycxcy: Float[Tensor, "b v 4"]
    """Intrinsics as shares of the image."""
    ids: tuple[str, ...] = ()
    """Names of the objects."""
    captions: tuple[str, ...] = ()
    """What the objects are."""

    def to(self, device: torch.device | str) -> ObjectViews:
        """The same on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    @property
    def num_inputs(self) -> int:
        """Number of input views."""
        return self.normal.shape[1]

    @property
    def images(self) -> Float[Tensor, "b i c=9 h w"]:
        """What GSRecon is given."""
        return torch.cat([self.rgb[:, : self.num_inputs], self.normal, self.coord], dim=2)

    @property
    def input_cameras(self) -> tuple[Float[Tensor, "b i 4 4"], Float[Tensor, "b i 4"]]:
        """Cameras of the input views, and their intrinsics."""
        return self.T_world_cam[:, : self.num_inputs], self.fxfycxcy[:, : self.num_inputs]

    def seen_in(self, grids: SplatGrids) -> RenderedViews:
        """What the views' cameras see of grids of the input views."""
        side = self.rgb.shape[-1]
        return rendered(activated(grids, *self.input_cameras), self.T_world_cam, self.fxfycxcy, side, side)


def joined(items: list[ObjectViews]) -> ObjectViews:
    """A batch of several."""
    tensors = {name: torch.cat([getattr(item, name) for item in items]) for name in TENSORS}
    return ObjectViews(
        **tensors,
        ids=tuple(name for item in items for name in item.ids),
        captions=tuple(caption for item in items for caption in item.captions),
    )


def generated_views(
    seed: int,
    size: int,
    *,
    num_extra: int = 4,
    objects: ObjectConfig | None = None,
    elevation_deg: float | None = None,
    samples: int = 2,
) -> ObjectViews:
    """Views of a generated object, the same for a seed.

    Args:
        seed: Of the object, and of its cameras.
        size: Side of the views in pixels.
        num_extra: Views at random places besides the four input views.
        objects: What is drawn.
        elevation_deg: Of the input views, positive above the horizon; None draws one of 5 to 30 degrees.
        samples: Rays per pixel and axis.
    """
    generated = sample_object(seed, objects or ObjectConfig())
    rng = np.random.default_rng([seed, 1])
    elevation = float(rng.uniform(5, 30)) if elevation_deg is None else elevation_deg
    places = [(elevation, azimuth) for azimuth in AZIMUTHS_DEG]
    places += [(float(rng.uniform(-5, 40)), float(rng.uniform(0, 360))) for _ in range(num_extra)]
    # The released sign of elevations: negative is above.
    cameras = [orbit_camera(-above, azimuth) for above, azimuth in places]
    K = intrinsics(size)
    maps = [ray_cast(generated, camera.double().numpy(), K, size, size, samples=samples) for camera in cameras]
    inputs = maps[: len(AZIMUTHS_DEG)]

    def stacked(values: list[np.ndarray]) -> Tensor:
        array = np.stack([value if value.ndim == 3 else value[..., None] for value in values])
        return torch.from_numpy(array).permute(0, 3, 1, 2)[None].contiguous()

    return ObjectViews(
        rgb=stacked([one.rgb for one in maps]),
        mask=stacked([one.mask for one in maps]),
        normal=stacked([one.normal_rgb for one in inputs]),
        coord=stacked([one.coord_rgb for one in inputs]),
        depth=stacked([one.depth for one in inputs]),
        T_world_cam=torch.stack(cameras)[None],
        fxfycxcy=canonical_intrinsics(len(cameras))[None],
        ids=(f"generated-{seed}",),
        captions=(generated.caption,),
    )


@runtime_checkable
class ViewsOfObjects(Protocol):
    """A list of objects that gives views of any of them."""

    def __len__(self) -> int:
        """Number of objects."""
        ...

    def batch(self, indices: list[int]) -> ObjectViews:
        """The views of these objects, always the same."""
        ...


class GeneratedViews:
    """A list of generated objects' views, each made when it is first asked for and then kept."""

    def __init__(self, config: GeneratedObjectsConfig, *, first_seed: int = 0) -> None:
        self.config = config
        self.first_seed = first_seed
        self._made = lru_cache(maxsize=config.num_objects)(self._make)

    def __len__(self) -> int:
        """Number of objects."""
        return self.config.num_objects

    def _make(self, index: int) -> ObjectViews:
        return generated_views(
            self.first_seed + index, self.config.size, num_extra=self.config.num_extra, objects=self.config.objects
        )

    def batch(self, indices: list[int]) -> ObjectViews:
        """The views of these objects."""
        return joined([self._made(index) for index in indices])
