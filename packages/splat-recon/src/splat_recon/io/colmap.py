"""COLMAP folders: the only file that knows COLMAP's model.

A scene folder holds the photos in ``images/`` (subfolders allowed) and a model, binary or text, in ``sparse/0``,
``colmap/sparse/0`` or ``sparse``. Photos that the model does not register are left alone. Masks are optional:
``masks/<photo name>.png`` or the photo's name with the ending .png, white where the photo is valid.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from splat_recon.errors import InputError
from splat_recon.geometry.cameras import Camera
from splat_recon.geometry.poses import inverse, rigid, transform_camera, transform_points
from splat_recon.io.colmap_binary import check_binary_model
from splat_recon.io.images import photo_size, read_mask, read_photo, write_mask, write_photo
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.scene.downscale import downscaled_view
from splat_recon.scene.scene import Points, Scene, View

MODEL_FOLDERS = ("sparse/0", "colmap/sparse/0", "sparse")
"""Where a scene folder may keep its model, in the order they are tried."""

UNDISTORTED_MODELS = ("SIMPLE_PINHOLE", "PINHOLE")
"""Camera models that are pinholes already."""

NUM_PHOTO_THREADS = 4
"""Photos that are decoded at the same time."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Registered:
    """A photo that the model registers."""

    name: str
    path: Path
    mask_path: Path | None
    colmap_camera: pycolmap.Camera
    T_world_cam: Float64[np.ndarray, "4 4"]


def read_scene(folder: Path | str, *, max_size: int | None = None, images: str = "images") -> Scene:
    """Read the photos, cameras and points of a COLMAP folder.

    Lens distortion, of any of COLMAP's perspective and fisheye models, is taken out of the photos here, once; the
    cameras of the scene are pinholes. Where all photos are smaller than their cameras by one ratio (the model was made
    from larger copies), the intrinsics are scaled by the actual sizes and the log says so. The photos' EXIF
    orientation is not applied, as COLMAP does not apply it.

    Args:
        folder: The scene folder.
        max_size: Downscale photos in memory to at most this many pixels on their longer side. None: as they are.
        images: Folder of the photos inside the scene folder.

    Returns:
        The scene in COLMAP's own frame.

    Raises:
        InputError: Anything is wrong with the folder. Everything is checked first; the message holds the first ten
            problems.
    """
    folder = Path(folder)
    reconstruction = _read_model(_find_model(folder), folder)
    where = f"scene {folder}"
    registered, problems = _registered_photos(reconstruction, folder, images)
    points = _points(reconstruction, problems)
    sizes = _photo_sizes(registered, problems)
    _check_sizes(registered, sizes, problems)
    readable = [photo for photo in registered if photo.name in sizes]
    if problems:
        # Photos are decoded all the same, for one error is to name all problems; their cameras may be wrong.
        _find_corrupt(readable, problems)
        raise InputError.from_problems(where, problems)
    views = _read_views(readable, sizes, max_size, problems)
    if problems or points is None:
        raise InputError.from_problems(where, problems)
    return Scene(views=tuple(views), points=points, T_scene_colmap=np.eye(4), name=folder.resolve().name)


def _find_model(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: expected a COLMAP scene folder (images/ and sparse/0/)")
    incomplete = ""
    for candidate in MODEL_FOLDERS:
        model = folder / candidate
        for suffix in (".bin", ".txt"):
            needed = [f"{part}{suffix}" for part in ("cameras", "images", "points3D")]
            missing = [name for name in needed if not (model / name).is_file()]
            if not missing:
                _warn_of_other_models(model)
                return model
            if len(missing) < len(needed):
                incomplete = f" ({model} lacks {', '.join(missing)})"
    raise InputError(
        f"{folder} is not a COLMAP scene folder: there is no model (cameras, images and points3D, .bin or .txt) in "
        f"{', '.join(MODEL_FOLDERS)}{incomplete}; for photos without a model, reconstruct them first"
    )


def _warn_of_other_models(model: Path) -> None:
    others = sorted(path.name for path in model.parent.glob("[0-9]*") if path.is_dir() and path != model)
    if model.name == "0" and others:
        _log.warning("%s has further models (%s): only %s is read", model.parent, ", ".join(others), model.name)


def _read_model(model: Path, folder: Path) -> pycolmap.Reconstruction:
    if (model / "cameras.bin").is_file():
        check_binary_model(model)
    try:
        reconstruction = pycolmap.Reconstruction(model)
    except (RuntimeError, ValueError, IndexError, KeyError, MemoryError, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"scene {folder}: the model in {model} cannot be read ({first_line})") from None
    if not any(image.has_pose for image in reconstruction.images.values()):
        raise InputError(f"scene {folder}: the model in {model} has no registered images")
    return reconstruction


def _registered_photos(
    reconstruction: pycolmap.Reconstruction, folder: Path, images: str
) -> tuple[list[_Registered], list[str]]:
    """The registered photos sorted by name, and what is wrong with their cameras and poses."""
    problems = [
        f"camera {camera_id}: {problem}"
        for camera_id, camera in sorted(reconstruction.cameras.items())
        if (problem := _camera_problem(camera))
    ]
    if not (folder / images).is_dir():
        problems.append(f"there is no folder {folder / images} with the photos")
        return [], problems
    registered = []
    by_name = sorted((image.name, image_id) for image_id, image in reconstruction.images.items() if image.has_pose)
    for name, image_id in by_name:
        image = reconstruction.images[image_id]
        T_cam_world = np.asarray(image.cam_from_world().matrix(), dtype=np.float64)
        R_world_cam = T_cam_world[:, :3].T
        T_world_cam = rigid(R_world_cam, -R_world_cam @ T_cam_world[:, 3])
        if not np.isfinite(T_world_cam).all():
            problems.append(f"photo {name} has a pose that is not finite")
            continue
        registered.append(
            _Registered(
                name=name,
                path=folder / images / name,
                mask_path=_mask_path(folder / "masks", name),
                colmap_camera=reconstruction.cameras[image.camera_id],
                T_world_cam=T_world_cam,
            )
        )
    return registered, problems


def _camera_problem(camera: pycolmap.Camera) -> str | None:
    if camera.is_spherical():
        return f"the model {camera.model_name} is no perspective or fisheye camera: cut the photos to pinhole views"
    focal_lengths = [camera.params[index] for index in camera.focal_length_idxs()]
    if not np.isfinite(camera.params).all() or any(focal <= 0 for focal in focal_lengths):
        return f"the parameters {camera.params_to_string()} are not those of a camera"
    if camera.width < 1 or camera.height < 1:
        return f"the size {camera.width}x{camera.height} is not that of a photo"
    return None


def _mask_path(masks: Path, name: str) -> Path | None:
    candidates = (masks / f"{name}.png", (masks / name).with_suffix(".png"))
    return next((path for path in candidates if path.is_file()), None)


def _points(reconstruction: pycolmap.Reconstruction, problems: list[str]) -> Points | None:
    in_order = [point for _, point in sorted(reconstruction.points3D.items())]
    if not in_order:
        problems.append("the model has no 3D points")
        return None
    p_world = np.stack([point.xyz for point in in_order])
    num_wrong = int((~np.isfinite(p_world).all(axis=1)).sum())
    if num_wrong:
        problems.append(f"{num_wrong} of {len(p_world)} 3D points are not finite")
        return None
    rgb_u8 = np.stack([point.color for point in in_order])
    return Points(p_world=p_world.astype(np.float32), rgb_u8=rgb_u8, seen_in=_seen_in(reconstruction, in_order))


def _seen_in(
    reconstruction: pycolmap.Reconstruction, in_order: Sequence[pycolmap.Point3D]
) -> dict[str, Int64[np.ndarray, " m"]]:
    """Which points each photo shows, from the points' tracks."""
    found: dict[int, list[int]] = {}
    for index, point in enumerate(in_order):
        for image_id in {element.image_id for element in point.track.elements}:
            found.setdefault(image_id, []).append(index)
    images = reconstruction.images
    return {
        images[image_id].name: np.array(idx, dtype=np.int64) for image_id, idx in found.items() if image_id in images
    }


def _photo_sizes(registered: Sequence[_Registered], problems: list[str]) -> dict[str, tuple[int, int]]:
    sizes = {}
    for photo in registered:
        try:
            sizes[photo.name] = photo_size(photo.path)
        except InputError as error:
            problems.append(str(error))
    return sizes


def _check_sizes(registered: Sequence[_Registered], sizes: Mapping[str, tuple[int, int]], problems: list[str]) -> None:
    """Photos must have their camera's size, or all be smaller by one ratio."""
    known = [(photo, sizes[photo.name]) for photo in registered if photo.name in sizes]
    differing = [(photo, size) for photo, size in known if size != _camera_size(photo)]
    if not differing:
        return
    photo, size = differing[0]
    ratio = size[0] / _camera_size(photo)[0]
    if len(differing) == len(known) and all(_is_scaled(_camera_size(photo), size, ratio) for photo, size in known):
        _log.info("the photos are %.4g times as large as the model's cameras: intrinsics are scaled", ratio)
        return
    for photo, (width, height) in differing:
        camera_width, camera_height = _camera_size(photo)
        hint = "give the photos that the model was made from"
        if (width, height) == (camera_height, camera_width):
            hint = "its EXIF rotation seems to have been applied after the model was made: " + hint
        problems.append(
            f"photo {photo.path} is {width}x{height} but its camera is {camera_width}x{camera_height}: {hint}"
        )


def _camera_size(photo: _Registered) -> tuple[int, int]:
    return photo.colmap_camera.width, photo.colmap_camera.height


def _is_scaled(camera_size: tuple[int, int], size: tuple[int, int], ratio: float) -> bool:
    """Whether a size is the camera's times the ratio, less than 1, but for rounding."""
    return ratio < 1 and all(abs(pixels - full * ratio) < 1 for pixels, full in zip(size, camera_size, strict=True))


def _find_corrupt(photos: Sequence[_Registered], problems: list[str]) -> None:
    for photo in photos:
        try:
            read_photo(photo.path)
        except InputError as error:
            problems.append(str(error))


def _read_views(
    photos: Sequence[_Registered], sizes: Mapping[str, tuple[int, int]], max_size: int | None, problems: list[str]
) -> list[View]:
    def read(photo: _Registered) -> View | InputError:
        try:
            view = _read_view(photo, sizes[photo.name])
        except InputError as error:
            return error
        return view if max_size is None else downscaled_view(view, max_size)

    views = []
    with ThreadPoolExecutor(max_workers=NUM_PHOTO_THREADS) as pool:
        for outcome in pool.map(read, photos):
            if isinstance(outcome, InputError):
                problems.append(str(outcome))
            else:
                views.append(outcome)
    return views


def _read_view(photo: _Registered, size: tuple[int, int]) -> View:
    rgb_u8, mask = read_photo(photo.path)
    if photo.mask_path is not None:
        drawn = read_mask(photo.mask_path)
        if drawn.shape != rgb_u8.shape[:2]:
            raise InputError(
                f"mask {photo.mask_path} is {drawn.shape[1]}x{drawn.shape[0]} but its photo is {size[0]}x{size[1]}"
            )
        mask = drawn if mask is None else mask & drawn
    if photo.colmap_camera.model_name in UNDISTORTED_MODELS:
        K = np.asarray(photo.colmap_camera.calibration_matrix(), dtype=np.float64)
        width, height = _camera_size(photo)
        camera = Camera(T_world_cam=photo.T_world_cam, K=K, width=width, height=height).resized(*size)
        return View(name=photo.name, camera=camera, rgb_u8=rgb_u8, mask=mask)
    return _undistorted(photo, size, rgb_u8, mask)


def _undistorted(
    photo: _Registered,
    size: tuple[int, int],
    rgb_u8: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None,
) -> View:
    """The view through COLMAP's own pinhole for this camera: no blank pixels, cropped rather than stretched."""
    distorted = pycolmap.Camera(photo.colmap_camera.todict())
    distorted.rescale(*size)
    options = pycolmap.UndistortCameraOptions()
    try:
        bitmap, pinhole = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(rgb_u8), distorted)
        if mask is not None:
            mask_bitmap = pycolmap.Bitmap.from_array(mask.astype(np.uint8) * 255)
            mask_bitmap, _ = pycolmap.undistort_image(options, mask_bitmap, distorted)
            undistorted_mask = np.asarray(mask_bitmap.to_array()).reshape(pinhole.height, pinhole.width)
            mask = undistorted_mask >= 128
    except (RuntimeError, ValueError) as error:
        raise InputError(f"photo {photo.path} cannot be undistorted ({error}): check its camera's parameters") from None
    K = np.asarray(pinhole.calibration_matrix(), dtype=np.float64)
    camera = Camera(T_world_cam=photo.T_world_cam, K=K, width=pinhole.width, height=pinhole.height)
    return View(name=photo.name, camera=camera, rgb_u8=np.ascontiguousarray(bitmap.to_array()), mask=mask)


def write_scene(folder: Path | str, scene: Scene) -> None:
    """Write a COLMAP folder (PINHOLE cameras, binary model, masks where there are any) that `read_scene` reads back.

    A normalized scene goes back to COLMAP's frame. Photos are written under the names of the views: PNG loses
    nothing, JPEG does. The model holds points without tracks.

    Raises:
        InputError: The folder cannot be written, a view's name leaves it, or a camera has skew, which COLMAP's PINHOLE
            cannot express.
    """
    folder = Path(folder)
    _check_writable(scene)
    T_colmap_scene = inverse(scene.T_scene_colmap)
    reconstruction = pycolmap.Reconstruction()
    camera_ids: dict[tuple[float, ...], int] = {}
    for image_id, view in enumerate(scene.views, start=1):
        K, width, height = view.camera.K, view.camera.width, view.camera.height
        params = [float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])]
        key = (*params, width, height)
        if key not in camera_ids:
            camera_ids[key] = len(camera_ids) + 1
            reconstruction.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    camera_id=camera_ids[key], model="PINHOLE", width=width, height=height, params=np.array(params)
                )
            )
        T_cam_colmap = transform_camera(T_colmap_scene, view.camera).T_cam_world
        image = pycolmap.Image(name=view.name, camera_id=camera_ids[key], image_id=image_id)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T_cam_colmap[:3]))
    p_colmap = transform_points(T_colmap_scene, scene.points.p_world)
    for p, rgb_u8 in zip(p_colmap, scene.points.rgb_u8, strict=True):
        reconstruction.add_point3D(p, pycolmap.Track(), rgb_u8)
    model = folder / "sparse" / "0"
    try:
        model.mkdir(parents=True, exist_ok=True)
        reconstruction.write(model)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot write the model to {model}: {error}") from None
    for view in scene.views:
        write_photo(folder / "images" / view.name, view.rgb_u8)
        if view.mask is not None:
            write_mask(folder / "masks" / f"{view.name}.png", view.mask)


def _check_writable(scene: Scene) -> None:
    problems = []
    for view in scene.views:
        if Path(view.name).is_absolute() or ".." in Path(view.name).parts:
            problems.append(f"view {view.name}: its name leads out of the folder")
        if view.camera.K[0, 1] != 0:
            problems.append(f"view {view.name}: its K has skew, which COLMAP's PINHOLE model cannot express")
    if problems:
        raise InputError.from_problems(f"scene {scene.name} cannot be written as COLMAP", problems)
