"""Photos of lenses to photos of pinholes, done once and kept."""

import hashlib
import logging
import os
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from PIL import Image

from colmap_models.camera_models import PINHOLES
from media_files import read_photo
from splat_recon.errors import InputError
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.scene.photo_store import Pixels
from splat_render.cameras import Camera

VERSION = "1"
"""Part of the names of kept files: changes when the same photo would be undistorted in another way."""

_log = logging.getLogger(__name__)


def is_pinhole(camera: pycolmap.Camera) -> bool:
    """Whether photos of this camera need no undistortion."""
    return camera.model_name in PINHOLES


def pinhole_of(camera: pycolmap.Camera, T_world_cam: Float64[np.ndarray, "4 4"]) -> Camera:
    """The pinhole that COLMAP undistorts to: no blank pixels, cropped rather than stretched."""
    try:
        pinhole = camera if is_pinhole(camera) else pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"camera {camera.camera_id} cannot be undistorted ({error}): check its parameters") from None
    K = np.asarray(pinhole.calibration_matrix(), dtype=np.float64)
    return Camera(T_world_cam=T_world_cam, K=K, width=pinhole.width, height=pinhole.height)


def undistorted(pixels: Pixels, camera: pycolmap.Camera) -> Pixels:
    """A photo as `pinhole_of` sees it."""
    options = pycolmap.UndistortCameraOptions()
    mask = None
    try:
        bitmap, pinhole = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(pixels.rgb_u8), camera)
        if pixels.mask is not None:
            mask_bitmap = pycolmap.Bitmap.from_array(pixels.mask.astype(np.uint8) * 255)
            mask_bitmap, _ = pycolmap.undistort_image(options, mask_bitmap, camera)
            mask = np.asarray(mask_bitmap.to_array()).reshape(pinhole.height, pinhole.width) >= 128
    except (RuntimeError, ValueError) as error:
        raise InputError(f"camera {camera.camera_id} cannot be undistorted ({error}): check its parameters") from None
    return Pixels(rgb_u8=np.ascontiguousarray(bitmap.to_array()), mask=mask)


def default_cache_folder() -> Path:
    """Where applications keep undistorted photos: ``splat-recon/photos`` in the user's folder of caches.

    That folder is ``$XDG_CACHE_HOME``, else ``~/.cache``; on Windows ``%LOCALAPPDATA%``, on macOS ``~/Library/Caches``.
    """
    if sys.platform == "win32":
        place = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        place = "~/Library/Caches"
    else:
        place = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(place).expanduser() / "splat-recon" / "photos"


class UndistortedCache:
    """Undistorted photos on disk, under names made of the contents they come from.

    Whatever changes the result changes the name: the photo's bytes, its mask's, the camera and the size. Files that
    are damaged are made again; a folder that cannot be written costs a warning and nothing else.

    Args:
        folder: Where to keep them; made when the first one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writable = True

    def path(self, photo: Path, mask: Path | None, camera: pycolmap.Camera, *settings: object) -> Path:
        """The file of a photo.

        Args:
            settings: Whatever else the pixels depend on.
        """
        digest = hashlib.blake2b(digest_size=20)
        params = [float(value).hex() for value in camera.params]
        facts = [VERSION, camera.model_name, camera.width, camera.height, *params, *settings]
        digest.update("|".join(map(str, facts)).encode())
        for path in (photo, mask):
            try:
                digest.update(b"" if path is None else hashlib.blake2b(path.read_bytes()).digest())
            except OSError as error:
                raise InputError(f"photo {path} cannot be read: {error.strerror or error}") from None
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.png"

    def read(self, path: Path, camera: Camera) -> Pixels | None:
        """What is kept in a file, if it is there, whole, and of the camera's size."""
        if not path.is_file():
            return None
        try:
            rgb_u8, mask = read_photo(path)
        except InputError as error:
            _log.warning("%s: it is made again", error)
            return None
        return Pixels(rgb_u8=rgb_u8, mask=mask) if rgb_u8.shape[:2] == (camera.height, camera.width) else None

    def write(self, path: Path, pixels: Pixels) -> None:
        """Keep a photo without loss, whole or not at all."""
        if not self._writable:
            return
        partial = path.with_name(f".{path.stem}.{os.getpid()}.png")
        image = Image.fromarray(pixels.rgb_u8)
        if pixels.mask is not None:
            image.putalpha(Image.fromarray(pixels.mask.astype(np.uint8) * 255))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                image.save(partial, compress_level=1)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            self._writable = False
            _log.warning("undistorted photos cannot be kept in %s (%s): they are recreated", self.folder, error)
