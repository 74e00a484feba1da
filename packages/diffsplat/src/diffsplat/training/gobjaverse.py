"""Folders of G-Objaverse as trainings see them: cameras recreated around view 0, normals and depths in its frame.

A folder holds, for views 0 to 39, the color (RGBA), normals and depth (`_nd.exr`; or a PNG of 16 bits, be it named
`_nd.png` or `_nd.exr`: normal / 2 + 0.5, depth / 5) and the camera (JSON), side by side or each view in a folder of its
own. Views 0 to 23 go around at 5 to 30 degrees, 27 to 38 near the horizon, 25 and 26 are from above and below; 24 and
39 repeat others and are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from diffsplat.cameras import RADIUS, canonical_intrinsics, flipped_axes, orbit_camera, unprojected
from diffsplat.errors import InputError
from diffsplat.training.deep_png import is_png, read_deep_png
from diffsplat.training.exr import read_exr
from diffsplat.training.views import ObjectViews, joined

NUM_INPUT = 4
FIRST_RING, SECOND_RING = range(24), range(27, 39)
FIRST_RING_PROB = 2 / 3
"""How often the input views are taken from the first ring."""
USABLE = tuple(index for index in range(40) if index not in (24, 39))
DEPTH_UNIT = 5.0
"""Depth in scene units at the largest stored value."""
FULL_SCALE = 65535


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredView:
    """One view as it is stored."""

    rgba: Float[Tensor, "c=4 h w"]
    """In [0, 1]."""
    normal: Float[Tensor, "c=3 h w"]
    """As stored, in [-1, 1]."""
    depth: Float[Tensor, "c=1 h w"]
    """In stored scene units."""
    T_world_cam: Float64[np.ndarray, "4 4"]
    """An OpenGL camera in a world with y up."""


def read_view(folder: Path, index: int) -> StoredView:
    """Read one view of an object.

    Raises:
        InputError: A file is missing or cannot be read.
    """
    name = f"{index:05d}"
    place = folder / name if (folder / name).is_dir() else folder
    path = place / f"{name}_nd.png"
    if not path.is_file() and path.with_suffix(".exr").is_file():
        path = path.with_suffix(".exr")
    try:
        with Image.open(place / f"{name}.png") as image:
            rgba = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1).float() / 255
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{place / name}.png cannot be read: {error}") from error
    deep = _normals_and_depth(path)
    return StoredView(rgba=rgba, normal=deep[:3], depth=deep[3:], T_world_cam=_camera(place / f"{name}.json"))


def _normals_and_depth(path: Path) -> Float[Tensor, "c=4 h w"]:
    """As stored, normals first; where an EXR file holds no number, 0."""
    if path.suffix == ".exr" and not is_png(path):
        return torch.from_numpy(np.nan_to_num(read_exr(path), posinf=0, neginf=0)).permute(2, 0, 1)
    deep = torch.from_numpy(read_deep_png(path).astype(np.float64) / FULL_SCALE)
    if deep.shape[-1] != 4:
        raise InputError(f"{path} must hold normals and a depth: four channels")
    deep = deep.permute(2, 0, 1).float()
    return torch.cat([deep[:3] * 2 - 1, deep[3:] * DEPTH_UNIT])


def _camera(path: Path) -> Float64[np.ndarray, "4 4"]:
    """A stored camera (Blender's world, z up) as an OpenGL camera in a world with y up."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        columns = [np.asarray(values[key], np.float64) for key in ("x", "y", "z", "origin")]
        T_world_cam = np.eye(4)
        T_world_cam[:3] = np.stack(columns, axis=1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no camera: {error}") from error
    T_world_cam[1] *= -1
    T_world_cam[[1, 2]] = T_world_cam[[2, 1]]
    T_world_cam[:3, 1:3] *= -1
    return T_world_cam


def polar(T_world_cam: Float64[np.ndarray, "4 4"]) -> tuple[float, float, float]:
    """Elevation (negative above the horizon), azimuth, both in radians, and distance of a camera."""
    x, y, z = T_world_cam[:3, 3]
    distance = math.sqrt(x * x + y * y + z * z)
    return -math.asin(y / distance), math.atan2(x, z), distance


def polar_of_views(views: Sequence[StoredView]) -> Float[Tensor, "v 3"]:
    """Elevations, azimuths relative to view 0 in [0, 2 pi), and distances with that of view 0 scaled to 1.4."""
    rows = [polar(view.T_world_cam) for view in views]
    _, azimuth_0, distance_0 = rows[0]
    return torch.tensor([[e, (a - azimuth_0) % (2 * math.pi), d * RADIUS / distance_0] for e, a, d in rows])


def object_views(
    views: Sequence[StoredView], size: int, *, num_inputs: int = NUM_INPUT, name: str = "", caption: str = ""
) -> ObjectViews:
    """What trainings see of an object, of which the first view is view 0.

    Args:
        views: Stored views; the first `num_inputs` are the networks' input.
        size: Side in pixels.
        num_inputs: Views that normals, coordinates and depths are made of.
        name: Of the object.
        caption: What it is.
    """
    places = polar_of_views(views)
    cameras = torch.stack([orbit_camera(math.degrees(e), math.degrees(a), d) for e, a, d in places.tolist()])
    scale = RADIUS / polar(views[0].T_world_cam)[2]
    masks = torch.stack([view.rgba[3:] for view in views])
    colors = torch.stack([view.rgba[:3] for view in views])
    mask = _resized(masks, size)
    inner = masks[:num_inputs]
    # The world is turned so that view 0 stands on the z axis; stored normals have x the other way.
    R_new_old = flipped_axes(cameras[0])[:3, :3] @ torch.from_numpy(views[0].T_world_cam[:3, :3].T).float()
    normals = torch.stack([view.normal for view in views[:num_inputs]])
    normals = normals * normals.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    normals = torch.einsum("ij,vjhw->vihw", R_new_old, normals)
    depths = torch.stack([view.depth for view in views[:num_inputs]]) * scale
    points = unprojected(depths[:, 0], cameras[:num_inputs], canonical_intrinsics(num_inputs))

    def over_white(values: Tensor) -> Tensor:
        """At the trainings' size, the edges faded a second time, as in the released data layer."""
        small = _resized(values * inner + (1 - inner), size)
        return small * mask[:num_inputs] + (1 - mask[:num_inputs])

    return ObjectViews(
        rgb=_resized(colors * masks + (1 - masks), size)[None],
        mask=mask[None],
        normal=over_white(normals / 2 + 0.5)[None],
        coord=over_white(points / 2 + 0.5)[None],
        depth=(_resized(depths * inner, size) / mask[:num_inputs].clamp(min=1e-6) * (mask[:num_inputs] > 0.5))[None],
        T_world_cam=cameras[None],
        fxfycxcy=canonical_intrinsics(len(views))[None],
        ids=(name,),
        captions=(caption,),
    )


def depth_maps(views: Sequence[StoredView], size: int) -> Float[Tensor, "v 3 s s"]:
    """What a depth ControlNet is given: nearness in [0, 1], the farthest 0, white where there is nothing."""
    scale = RADIUS / polar(views[0].T_world_cam)[2]
    masks = torch.stack([view.rgba[3:] for view in views])
    depths = torch.stack([view.depth for view in views]) * scale
    farthest = (depths * masks).amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    near = _resized((1 - depths / farthest) * masks + (1 - masks), size)
    mask = _resized(masks, size)
    return (near * mask + (1 - mask)).expand(-1, 3, -1, -1)


def _resized(values: Float[Tensor, "v c h w"], size: int) -> Float[Tensor, "v c s s"]:
    return functional.interpolate(values, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def drawn_views(rng: np.random.Generator, num_extra: int = 4) -> list[int]:
    """Numbers of four views around an object at even distances, and of further ones."""
    ring = FIRST_RING if rng.random() < FIRST_RING_PROB else SECOND_RING
    begin, step = int(rng.integers(len(ring))), len(ring) // NUM_INPUT
    inputs = [ring[(begin + step * index) % len(ring)] for index in range(NUM_INPUT)]
    others = [index for index in USABLE if index not in inputs]
    return inputs + [others[index] for index in rng.choice(len(others), size=num_extra, replace=False)]


class GObjaverseViews:
    """Objects of G-Objaverse in folders of their own; a stand-in for `GeneratedViews`.

    Which views an object is shown by is drawn once, from the seed and its place in the list.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        size: int,
        *,
        num_extra: int = 4,
        seed: int = 0,
        captions: Mapping[str, str] | None = None,
    ) -> None:
        """List the objects; nothing is read yet.

        Args:
            folders: One per object.
            size: Side of the views in pixels.
            num_extra: Views besides the four input views.
            seed: Of the choice of views.
            captions: By a folder's name; objects without one get an empty caption.

        Raises:
            InputError: There is no folder, or one is missing.
        """
        missing = [str(folder) for folder in folders if not folder.is_dir()]
        if missing or not folders:
            raise InputError(f"folders of objects are missing: {', '.join(missing[:10]) or 'none is given'}")
        self.folders, self.size, self.num_extra, self.seed = list(folders), size, num_extra, seed
        self.captions = captions or {}

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.folders)

    def batch(self, indices: list[int]) -> ObjectViews:
        """The views of these objects."""
        return joined([self._views(index) for index in indices])

    def _views(self, index: int) -> ObjectViews:
        folder = self.folders[index]
        numbers = drawn_views(np.random.default_rng([self.seed, index]), self.num_extra)
        stored = [read_view(folder, number) for number in numbers]
        return object_views(stored, self.size, name=folder.name, caption=self.captions.get(folder.name, ""))
