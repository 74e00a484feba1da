"""From posed photos on disk, of whatever format named them, to views whose pixels are read when they are wanted."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from colmap_models import shown
from media_files import image_size, read_mask, read_photo
from media_files.photos import image_orientation
from splat_recon.errors import InputError
from splat_recon.io.field_of_view import say_what_is_cut_away
from splat_recon.io.image_folders import IMAGES, ImageFolder, find_mask, say_masks
from splat_recon.io.images import laid_over
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.undistort import UndistortedCache, is_pinhole, pinhole_of, undistorted
from splat_recon.scene.downscale import downscaled_pixels, limited_size, resized_mask
from splat_recon.scene.photo_store import PhotoStore, Pixels, StoredView
from splat_recon.scene.random_points import random_points
from splat_recon.scene.scene import Points
from splat_render.cameras import Camera

NUM_PHOTO_THREADS = 4
"""Photos that are decoded at the same time while a scene is read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PosedPhoto:
    """A photo that has a camera."""

    name: str
    """Its name in the scene."""

    colmap_camera: pycolmap.Camera
    """The lens, at the size that the camera was calibrated for."""

    T_world_cam: Float64[np.ndarray, "4 4"]
    """Camera to world."""

    mask_path: Path | None = None
    """Its mask's file, where the format names one."""

    @property
    def camera_size(self) -> tuple[int, int]:
        """Width and height of the calibrated camera."""
        return self.colmap_camera.width, self.colmap_camera.height


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The file of a posed photo."""

    photo: PosedPhoto
    path: Path
    mask_path: Path | None
    size: tuple[int, int]
    """Width and height, after turning."""
    turned: bool
    """The camera belongs to the photo as its EXIF orientation shows it, not as it is stored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadOptions:
    """How a scene's photos are read."""

    max_size: int | None = None
    """Photos are shrunk to at most this many pixels on their longer side."""

    store: PhotoStore = field(default_factory=PhotoStore)
    """Keeps decoded photos."""

    cache: UndistortedCache | None = None
    """Keeps undistorted photos on disk."""

    background: tuple[int, int, int] | None = None
    """What transparent photos are laid over, as bytes. None: what is transparent in a photo is masked."""


def camera_problem(camera: pycolmap.Camera) -> str | None:
    """What is wrong with a camera, in a sentence, or None."""
    if camera.is_spherical():
        return f"the model {camera.model_name} is no perspective or fisheye camera: cut the photos to pinhole views"
    focal_lengths = [camera.params[index] for index in camera.focal_length_idxs()]
    if not np.isfinite(camera.params).all() or any(focal <= 0 for focal in focal_lengths):
        return f"the parameters {camera.params_to_string()} are not those of a camera"
    if camera.width < 1 or camera.height < 1:
        return f"the size {camera.width}x{camera.height} is not that of a photo"
    return None


def read_views(
    photos: Sequence[PosedPhoto], scene: Path, images: ImageFolder, options: ReadOptions, problems: list[str]
) -> list[StoredView]:
    """The views of photos; what is wrong with any of them is added to the problems.

    Every photo is decoded once here, so that a broken one is found before anything else begins; its pixels stay in the
    store while there is room.

    Args:
        problems: Sentences so far; where there are any, photos are only looked at for more.
    """
    found = _find(photos, scene, images, problems)
    _check_sizes(found, problems)
    if problems:
        # Photos are decoded all the same, for one error is to name all problems; their cameras may be wrong.
        for one in found:
            _collect(lambda one=one: read_photo(one.path), problems)
        return []
    say_what_is_cut_away(one.photo.colmap_camera for one in found)
    say_masks(scene, sum(one.mask_path is not None for one in found), len(found))
    views: list[StoredView] = []
    for one in found:
        _collect(lambda one=one: views.append(_view(one, options)), problems)
    if not problems:
        with ThreadPoolExecutor(max_workers=NUM_PHOTO_THREADS) as pool:
            problems += [problem for problem in pool.map(_decoding_problem, views) if problem]
    return views


def sources_of(photos: Sequence[PosedPhoto], scene: Path, images: ImageFolder) -> list[Path]:
    """The files and folders that photos and their masks are read from, for `Scene.sources`.

    Args:
        scene: The scene folder; it does not count as a whole, for results may well lie in a folder inside it.
    """
    folders = [*scene.glob(f"{IMAGES}*"), *scene.glob("masks*"), images.path]
    files = [path for photo in photos for path in (images.file(photo.name), photo.mask_path) if path is not None]
    found = [path for path in folders if path.is_dir() and path.resolve() != scene.resolve()]
    return [*dict.fromkeys([*found, *files])]


def points_in_sight(photos: Sequence[PosedPhoto], why: str) -> Points:
    """Random points where the cameras look, for a scene that has none of its own; a warning says so.

    Args:
        photos: At least one.
    """
    _log.warning("%s: training starts from points drawn at random where the cameras look", why)
    tangents = [photo.colmap_camera.width / (2 * photo.colmap_camera.mean_focal_length()) for photo in photos]
    return random_points([photo.T_world_cam for photo in photos], tangents)


def _collect(act, problems: list[str]) -> None:
    try:
        act()
    except InputError as error:
        problems.append(str(error))


def _decoding_problem(view: StoredView) -> str | None:
    try:
        _ = view.photo.pixels
    except InputError as error:
        return str(error)
    return None


def _find(photos: Sequence[PosedPhoto], scene: Path, images: ImageFolder, problems: list[str]) -> list[_Found]:
    found = []
    of_file: dict[Path, str] = {}
    for photo in photos:
        path = images.file(photo.name)
        if path is None:
            problems.append(images.problem(photo.name))
            continue
        if (other := of_file.setdefault(path, photo.name)) != photo.name:
            problems.append(f"photos {shown(other)} and {shown(photo.name)} are both {path}: one of them is missing")
            continue
        try:
            width, height = image_size(path, upright=False)
            # The orientation is looked at only where it can matter.
            across = _is_wide((width, height)) == -_is_wide(photo.camera_size) != 0
            turned = across and image_orientation(path) in (5, 6, 7, 8)
        except InputError as error:
            problems.append(str(error))
            continue
        mask_path = photo.mask_path or find_mask(scene, images.path, photo.name)
        size = (height, width) if turned else (width, height)
        found.append(_Found(photo=photo, path=path, mask_path=mask_path, size=size, turned=turned))
    num_turned = sum(one.turned for one in found)
    if num_turned:
        _log.info("%d photos are turned by their EXIF orientation, as their cameras were", num_turned)
    return found


def _is_wide(size: tuple[int, int]) -> int:
    return (size[0] > size[1]) - (size[0] < size[1])


def _check_sizes(found: Sequence[_Found], problems: list[str]) -> None:
    """Photos must have their camera's size, or all be smaller by one ratio."""
    differing = [one for one in found if one.size != one.photo.camera_size]
    if not differing:
        return
    ratio = _common_ratio(found) if len(differing) == len(found) else None
    if ratio is not None:
        _log.info("the photos are %.4g times as large as the model's cameras: intrinsics are scaled", ratio)
        return
    for one in differing:
        (width, height), (camera_width, camera_height) = one.size, one.photo.camera_size
        hint = "give the photos that the model was made from"
        if (width, height) == (camera_height, camera_width):
            hint = "its EXIF rotation seems to have been applied after the model was made: " + hint
        problems.append(
            f"photo {one.path} is {width}x{height} but its camera is {camera_width}x{camera_height}: {hint}"
        )


def _common_ratio(found: Sequence[_Found]) -> float | None:
    """The ratio, less than 1, by which all photos are smaller than their cameras but for rounding; None if none is."""
    sides = [side for one in found for side in zip(one.size, one.photo.camera_size, strict=True)]
    low = max((pixels - 1) / full for pixels, full in sides)
    high = min((pixels + 1) / full for pixels, full in sides)
    if low >= high or any(pixels >= full for pixels, full in sides):
        return None
    return min(max(sides[0][0] / sides[0][1], low), high)


def _view(found: _Found, options: ReadOptions) -> StoredView:
    photo = found.photo
    lens = pycolmap.Camera(photo.colmap_camera.todict())
    if is_pinhole(lens):
        # The pinhole is scaled, not rescaled by COLMAP, which moves principal points by rounding.
        pinhole = pinhole_of(lens, photo.T_world_cam).resized(*found.size)
    else:
        lens.rescale(*found.size)
        pinhole = pinhole_of(lens, photo.T_world_cam)
    size = (pinhole.width, pinhole.height)
    width, height = size if options.max_size is None else limited_size(*size, options.max_size)
    camera = pinhole.resized(width, height)
    decoder = _Decoder(
        found=found,
        lens=None if is_pinhole(lens) else lens,
        camera=camera,
        cache=options.cache,
        background=options.background,
    )
    return StoredView(name=shown(photo.name), camera=camera, photo=options.store.photo(decoder))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decoder:
    """Reads a photo and its mask, undistorts and shrinks them: the same bytes at each call."""

    found: _Found
    lens: pycolmap.Camera | None
    camera: Camera
    cache: UndistortedCache | None
    background: tuple[int, int, int] | None = None

    def __call__(self) -> Pixels:
        if self.lens is None or self.cache is None:
            return self._made()
        found = self.found
        size = f"{self.camera.width}x{self.camera.height}"
        settings = (size, found.turned) if self.background is None else (size, found.turned, self.background)
        path = self.cache.path(found.path, found.mask_path, self.lens, *settings)
        kept = self.cache.read(path, self.camera)
        if kept is not None:
            return kept
        made = self._made()
        self.cache.write(path, made)
        return made

    def _made(self) -> Pixels:
        rgb_u8, mask = read_photo(self.found.path, upright=self.found.turned)
        if mask is not None and self.background is not None:
            rgb_u8, mask = laid_over(self.found.path, self.background, upright=self.found.turned), None
        drawn = self._drawn_mask()
        if drawn is not None:
            mask = drawn if mask is None else mask & drawn
        pixels = Pixels(rgb_u8=rgb_u8, mask=mask)
        if self.lens is not None:
            pixels = undistorted(pixels, self.lens)
        pixels = downscaled_pixels(pixels, self.camera.width, self.camera.height)
        if pixels.mask is not None and not pixels.mask.any():
            raise InputError(f"view {self.found.photo.name}: its mask leaves no pixel; remove the mask or the photo")
        return pixels

    def _drawn_mask(self) -> Bool[np.ndarray, "h w"] | None:
        path, size = self.found.mask_path, self.found.size
        if path is None:
            return None
        mask = read_mask(path, upright=self.found.turned)
        mask_size = (mask.shape[1], mask.shape[0])
        if mask_size == size:
            return mask
        if mask_size == self.found.photo.camera_size:
            return resized_mask(mask, *size)
        raise InputError(f"mask {path} is {mask_size[0]}x{mask_size[1]} but its photo is {size[0]}x{size[1]}")
