"""One's own photos: a COLMAP folder with masks, converted to cameras and crops as the networks know them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from colmap_models import ColmapModel, ModelImage, find_model, read_model, shown
from colmap_models.camera_models import PINHOLES
from media_files import read_mask, read_photo
from sparsefusion.cameras import Cameras
from sparsefusion.data.sequence import ObjectSequence, crop_and_resize, crop_around, cropped_intrinsics
from sparsefusion.errors import InputError, first_problems

CAMERA_DISTANCE = 6.0
"""Scenes are scaled so that cameras stand this far from the object in the mean; the depth range reaches 5 around it."""

MAX_OBJECT_RADIUS = 3.0
"""Objects that would then be larger than this are scaled down to it, to fit into the field's cube."""

MASK_FOLDERS = ("masks", "mask")
"""Where masks are looked for; without such a folder they must be in the photos' alpha channel."""

MASK_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Endings of mask files, in any case."""

FLIP = torch.tensor([-1.0, -1.0, 1.0])
"""COLMAP's camera axes are x right, y down, z forward; PyTorch3D's are x left, y up, z forward."""


@dataclass(frozen=True)
class _View:
    """One photo with its pinhole camera in COLMAP's world."""

    name: str
    rgb: Float[Tensor, "3 h w"]
    mask: Float[Tensor, "1 h w"]
    R_cam_world: Float[Tensor, "3 3"]
    t_cam_world: Float[Tensor, " 3"]
    focal: Float[Tensor, " 2"]
    principal: Float[Tensor, " 2"]

    @property
    def center(self) -> Float[Tensor, " 3"]:
        return -self.R_cam_world.T @ self.t_cam_world

    def ray(self, x: Tensor, y: Tensor) -> Float[Tensor, " 3"]:
        """Direction of a pixel's ray in the world, of length one."""
        slopes = (torch.stack([x, y]).double() - self.principal) / self.focal
        dir_cam = torch.cat([slopes, torch.ones(1, dtype=slopes.dtype)])
        return torch.nn.functional.normalize(self.R_cam_world.T @ dir_cam, dim=0)


@dataclass(frozen=True)
class WorldTransform:
    """The similarity from COLMAP's world to the object's: ``p_object = scale * (p_colmap - center)``."""

    center: tuple[float, float, float]
    """The object's center in COLMAP's world."""

    scale: float
    """Object units per COLMAP unit."""


@dataclass(frozen=True)
class ColmapObject:
    """Photos of an object from a COLMAP folder, and how they were moved."""

    sequence: ObjectSequence
    """The photos, cropped and square."""

    transform: WorldTransform
    """From COLMAP's world to the object's."""


def read_colmap_object(scene: Path, *, image_size: int = 256, max_radius: float = MAX_OBJECT_RADIUS) -> ColmapObject:
    """Read a scene folder: photos in ``images/``, a COLMAP model, masks in ``masks/`` or in alpha channels.

    The world is moved and scaled so that the object stands at its center and cameras are as far away as those that the
    networks were trained on; `ColmapObject.transform` says how.

    Args:
        image_size: Side of the squares that photos become, in pixels.
        max_radius: Objects that would be larger than this are scaled down to it, in scene units.

    Raises:
        InputError: Something is missing, cannot be read, or does not fit; the first ten problems are listed.
    """
    if not scene.is_dir():
        raise InputError(f"{scene} is not a folder: name a COLMAP scene with images/, sparse/0/ and masks/")
    model = read_model(find_model(scene))
    problems: list[str] = []
    views: list[_View] = []
    for image in model.images:
        try:
            views.append(_read_view(scene, model, image))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(first_problems(problems))
    transform = _object_transform(views, scene, max_radius)
    parts = [_converted(view, transform, image_size) for view in views]
    rgb, masks, valid, R, T, focal, principal = (torch.stack(part) for part in zip(*parts, strict=True))
    cameras = Cameras(R, T, focal, principal)
    names = tuple(view.name for view in views)
    return ColmapObject(ObjectSequence(scene.name, rgb, masks, valid, cameras, names, centered=True), transform)


def _find_mask(scene: Path, name: str) -> Path | None:
    """A photo's mask: the photo's name with any image ending, also behind the photo's own (COLMAP's rule)."""
    for folder in (scene / candidate for candidate in MASK_FOLDERS):
        if not folder.is_dir():
            continue
        photo = Path(name)
        parent = folder / photo.parent
        if not parent.is_dir():
            continue
        for stem in (photo.name, photo.stem):
            for path in sorted(parent.iterdir()):
                if path.stem == stem and path.suffix.lower() in MASK_ENDINGS:
                    return path
    return None


def _read_view(scene: Path, model: ColmapModel, image: ModelImage) -> _View:
    path = scene / "images" / image.name
    try:
        is_there = path.is_file()
    except OSError:  # The name is too long for one.
        is_there = False
    if not is_there:
        raise InputError(f"{scene / 'images' / shown(image.name)} is missing")
    T_world_cam = image.T_world_cam
    if T_world_cam is None:
        raise InputError(f"{path} has a pose that is not finite, or a quaternion of zeros")
    camera = model.camera_of(image)
    if camera.model not in PINHOLES:
        raise InputError(f"{path} has a {camera.model} camera: undistort the scene first (colmap image_undistorter)")
    *focal, x, y = camera.params
    if not (np.isfinite(camera.params).all() and min(*focal, camera.width, camera.height) > 0):
        raise InputError(f"{path} has a camera whose size or parameters are not those of a camera")
    rgb_u8, opaque = read_photo(path)
    mask_path = _find_mask(scene, image.name)
    if mask_path is not None:
        mask = torch.from_numpy(read_mask(mask_path)).float()
    elif opaque is not None and not opaque.all():
        mask = torch.from_numpy(opaque).float()
    else:
        raise InputError(f"{path} has no mask: put one into {scene / MASK_FOLDERS[0]} or into its alpha channel")
    rgb = torch.from_numpy(rgb_u8.copy()).permute(2, 0, 1).float() / 255
    if mask.shape != rgb.shape[1:]:
        size = f"{mask.shape[1]} x {mask.shape[0]}"
        raise InputError(f"the mask of {path} has {size} pixels and the photo {rgb.shape[2]} x {rgb.shape[1]}")
    if not (mask > 0).any():
        raise InputError(f"the mask of {path} is empty")
    height, width = rgb.shape[1:]
    ratio = torch.tensor([width / camera.width, height / camera.height], dtype=torch.float64)
    if (ratio[0] / ratio[1] - 1).abs() > 0.02:
        raise InputError(f"{path} has another shape than its camera, {camera.width} x {camera.height}")
    R_cam_world = torch.from_numpy(T_world_cam[:3, :3].T.copy())
    t_cam_world = torch.tensor(image.translation, dtype=torch.float64)
    focals = torch.tensor([focal[0], focal[-1]], dtype=torch.float64) * ratio
    principal = torch.tensor([x, y], dtype=torch.float64) * ratio
    return _View(shown(image.name), rgb, mask[None], R_cam_world, t_cam_world, focals, principal)


def _object_transform(views: list[_View], scene: Path, max_radius: float) -> WorldTransform:
    """Where the object is: nearest to the rays through the middles of the masks; how large: as the masks say."""
    origins = torch.stack([view.center for view in views])
    rays, reaches = [], []
    for view in views:
        rows, columns = (view.mask[0] > 0).nonzero(as_tuple=True)
        x, y = columns.double().mean() + 0.5, rows.double().mean() + 0.5
        rays.append(view.ray(x, y))
        reaches.append(torch.hypot(columns - x, rows - y).max() / view.focal.mean())
    directions = torch.stack(rays)
    across = torch.eye(3, dtype=torch.float64) - directions[:, :, None] * directions[:, None]
    system = across.sum(dim=0)
    if torch.linalg.cond(system) > 1e8:
        raise InputError(f"the cameras in {scene} stand in one line with the object: views from two sides are needed")
    center = torch.linalg.solve(system, (across @ origins[..., None]).sum(dim=0))[:, 0]
    depths = ((center - origins) * directions).sum(dim=-1)
    if (depths <= 0).any():
        behind = [view.name for view, depth in zip(views, depths.tolist(), strict=True) if depth <= 0]
        raise InputError(f"the object is behind the cameras of {first_problems(behind)}: poses and masks do not fit")
    radius = float((torch.stack(reaches) * depths).median())
    scale = min(CAMERA_DISTANCE / float((origins - center).norm(dim=-1).mean()), max_radius / radius)
    return WorldTransform((float(center[0]), float(center[1]), float(center[2])), scale)


def _converted(view: _View, transform: WorldTransform, size: int) -> tuple[Tensor, ...]:
    """Crop, and turn COLMAP's axes and pixels into PyTorch3D's."""
    height, width = view.rgb.shape[1:]
    crop = crop_around(view.mask).clamped(height, width)
    rgb = crop_and_resize(view.rgb, crop, size, "bilinear")
    mask = crop_and_resize(view.mask, crop, size, "nearest").values
    focal, principal = cropped_intrinsics(view.focal, view.principal, crop, rgb.scale, size)
    center = torch.tensor(transform.center, dtype=torch.float64)
    flip = FLIP.double()
    R = view.R_cam_world.T * flip  # Row vectors: p_cam = p_world @ R + T.
    T = transform.scale * (view.t_cam_world + view.R_cam_world @ center) * flip
    return rgb.values * mask, mask, rgb.valid, R.float(), T.float(), focal.float(), principal.float()
