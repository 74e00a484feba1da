"""COLMAP folders: the only file that knows COLMAP's model.

A scene folder holds the photos in ``images/`` (subfolders allowed; smaller copies in ``images_2``, ``images_4``, ...)
and models, binary or text, in numbered folders of ``sparse`` or ``colmap/sparse``, or right there. Photos that the
model does not register are left alone. Masks are optional: ``masks/<photo name>.png`` or the photo's name with the
ending .png, white where the photo is valid; transparent parts of photos are masked as well.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float64, Int64

from media_files.photos import WRITABLE_SUFFIXES
from output_files import check_links, output_names
from splat_recon.errors import InputError
from splat_recon.io.colmap_binary import check_binary_model
from splat_recon.io.colmap_models import find_model
from splat_recon.io.frames_of_layouts import frames_of, photos_are_elsewhere, trained_on
from splat_recon.io.image_folders import IMAGES, choose_images
from splat_recon.io.images import write_mask, write_photo
from splat_recon.io.layouts import Layout, layout_of, scene_layout
from splat_recon.io.posed_photos import PosedPhoto, ReadOptions, camera_problem, points_in_sight, read_views, sources_of
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.transforms_json import read_frames
from splat_recon.io.undistort import UndistortedCache
from splat_recon.scene.photo_store import DEFAULT_PHOTO_BYTES, PhotoStore
from splat_recon.scene.scene import Points, Scene, View
from splat_render.poses import inverse, rigid, transform_camera, transform_points

BLENDER_BACKGROUND = (0, 0, 0)
"""What is behind the photos of Blender's scenes, as bytes."""

_log = logging.getLogger(__name__)


def read_scene(
    folder: Path | str,
    *,
    max_size: int | None = None,
    images: str = "auto",
    model: str | None = None,
    photo_bytes: int = DEFAULT_PHOTO_BYTES,
    cache_folder: Path | None = None,
) -> Scene:
    """Read the photos, cameras and points of a scene folder: COLMAP's, or another of `io.layouts.Layout`.

    Lens distortion, of any of COLMAP's perspective and fisheye models, is taken out of the photos; the cameras of the
    scene are pinholes. Where all photos are smaller than their cameras by one ratio (the model was made from larger
    copies), the intrinsics are scaled by the actual sizes and the log says so. The photos' EXIF orientation is not
    applied, as COLMAP does not apply it, unless it is what makes a photo as wide and high as its camera.

    Every photo is decoded once here, to find what is broken; afterwards pixels are in memory as far as `photo_bytes`
    allows and are decoded again when they are wanted. A model without points gets random ones where the cameras look,
    and a warning.

    Args:
        folder: The scene folder.
        max_size: Downscale photos in memory to at most this many pixels on their longer side. None: as they are.
        images: Folder of the photos inside the scene folder. ``auto``: ``images``, or the smallest complete
            ``images_N`` whose photos still fill `max_size`.
        model: The model to read, as its folder inside the scene folder or its number. None: of several the one with
            the most registered photos; a warning says so.
        photo_bytes: Decoded photos to hold in memory at once.
        cache_folder: Where undistorted photos are kept for the next time. None: nowhere; nothing is written.

    Returns:
        The scene in COLMAP's own frame.

    Raises:
        InputError: Anything is wrong with the folder. Everything is checked first; the message holds the first ten
            problems.
    """
    folder = Path(folder)
    cache = None if cache_folder is None else UndistortedCache(cache_folder)
    options = ReadOptions(max_size=max_size, store=PhotoStore(photo_bytes), cache=cache)
    layout = Layout.COLMAP if model is not None else scene_layout(folder)
    if layout is Layout.GAUSSIAN_SPLATTING and not (folder / IMAGES).is_dir():
        folder = _scene_of_output(folder)
        layout = scene_layout(folder)
    if layout is Layout.BLENDER:
        # The alpha channel of these scenes is the object's opacity and no mask.
        options = replace(options, background=BLENDER_BACKGROUND)
        _log.info("%s: transparent photos are read over black, which is what training has behind the splat", folder)
    if layout is not Layout.COLMAP:
        return read_frames(frames_of(folder, layout), images=images, options=options)
    place = find_model(folder, model)
    reconstruction = _read_model(place, folder)
    problems = [
        f"camera {camera_id}: {problem}"
        for camera_id, camera in sorted(reconstruction.cameras.items())
        if (problem := camera_problem(camera))
    ]
    photos = _posed_photos(reconstruction, problems)
    points = _points(reconstruction, problems)
    where = choose_images(folder, {photo.name: photo.camera_size for photo in photos}, images, max_size)
    if where is None:
        missing = folder / (IMAGES if images == "auto" else images)
        raise InputError.from_problems(f"scene {folder}", [*problems, f"there is no folder {missing} with the photos"])
    _count_unregistered(reconstruction, sorted(where.names), where.path)
    views = read_views(photos, folder, where, options, problems)
    if problems:
        raise InputError.from_problems(f"scene {folder}", problems)
    if points is None:
        points = points_in_sight(photos, f"the model of {folder} has no 3D points")
    return Scene(
        views=tuple(views),
        points=points,
        T_scene_colmap=np.eye(4),
        name=folder.resolve().name,
        sources=(place, *sources_of(photos, folder, where)),
    )


def _scene_of_output(output: Path) -> Path:
    """The scene that an output of the 3D Gaussian Splatting code was trained on, where it is still there."""
    source = trained_on(output)
    if source is None or layout_of(source) in (None, Layout.GAUSSIAN_SPLATTING):
        raise photos_are_elsewhere(output)
    _log.warning("%s is an output of the 3D Gaussian Splatting code: %s is read, its scene", output, source)
    return source


def _count_unregistered(reconstruction: pycolmap.Reconstruction, names: Sequence[str], where: Path) -> None:
    registered = {Path(image.name).with_suffix("") for image in reconstruction.images.values() if image.has_pose}
    num_left = sum(Path(name).with_suffix("") not in registered for name in names)
    if num_left:
        _log.info("%d of %d photos in %s are not registered in the model: left alone", num_left, len(names), where)


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


def _posed_photos(reconstruction: pycolmap.Reconstruction, problems: list[str]) -> list[PosedPhoto]:
    """The registered photos sorted by name; poses that are wrong are problems."""
    photos = []
    by_name = sorted((image.name, image_id) for image_id, image in reconstruction.images.items() if image.has_pose)
    for name, image_id in by_name:
        image = reconstruction.images[image_id]
        T_cam_world = np.asarray(image.cam_from_world().matrix(), dtype=np.float64)
        R_world_cam = T_cam_world[:, :3].T
        T_world_cam = rigid(R_world_cam, -R_world_cam @ T_cam_world[:, 3])
        if not np.isfinite(T_world_cam).all():
            problems.append(f"photo {name} has a pose that is not finite")
            continue
        photos.append(
            PosedPhoto(name=name, colmap_camera=reconstruction.cameras[image.camera_id], T_world_cam=T_world_cam)
        )
    return photos


def _points(reconstruction: pycolmap.Reconstruction, problems: list[str]) -> Points | None:
    """The points in the order of their ids; None where there are none, or where they are a problem."""
    in_order = [point for _, point in sorted(reconstruction.points3D.items())]
    if not in_order:
        return None
    p_world = np.stack([point.xyz for point in in_order])
    num_wrong = int((~np.isfinite(p_world).all(axis=1)).sum())
    if num_wrong:
        problems.append(f"{num_wrong} of {len(p_world)} 3D points are not finite")
        return None
    rgb_u8 = np.stack([point.color for point in in_order])
    return Points(p_world=p_world, rgb_u8=rgb_u8, seen_in=_seen_in(reconstruction, in_order))


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


def write_scene(folder: Path | str, scene: Scene) -> None:
    """Write a COLMAP folder (PINHOLE cameras, binary model, masks where there are any) that `read_scene` reads back.

    A normalized scene goes back to COLMAP's frame. Photos are written under the names of the views, as far as those
    are names of files (`output_files.output_names`): PNG loses nothing, JPEG does. The model holds the points with the
    tracks that `Points.seen_in` gives them.

    Raises:
        InputError: The folder cannot be written, or a camera has skew, which COLMAP's PINHOLE
            cannot express.
    """
    folder = Path(folder)
    _check_writable(scene)
    names = output_names(scene.names, ending=".png", kept=WRITABLE_SUFFIXES)
    T_colmap_scene = inverse(scene.T_scene_colmap)
    reconstruction = pycolmap.Reconstruction()
    camera_ids: dict[tuple[float, ...], int] = {}
    tracks = [pycolmap.Track() for _ in range(len(scene.points))]
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
        image = pycolmap.Image(name=names[view.name], camera_id=camera_ids[key], image_id=image_id)
        seen_idx = scene.points.seen_in.get(view.name, np.zeros(0, np.int64))
        pixels = _pixels(view, scene.points.p_world[seen_idx])
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(xy) for xy in pixels])
        for point2d_idx, index in enumerate(seen_idx):
            tracks[index].add_element(image_id, point2d_idx)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T_cam_colmap[:3]))
    p_colmap = transform_points(T_colmap_scene, scene.points.p_world)
    for p, track, rgb_u8 in zip(p_colmap, tracks, scene.points.rgb_u8, strict=True):
        reconstruction.add_point3D(p, track, rgb_u8)
    model = folder / "sparse" / "0"
    try:
        check_links(folder)
        model.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".model-") as partial:
            reconstruction.write(partial)
            for path in sorted(Path(partial).iterdir()):
                path.replace(model / path.name)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot write the model to {model}: {error}") from None
    for view in scene.views:
        write_photo(folder / IMAGES / names[view.name], view.rgb_u8)
        if view.mask is not None:
            write_mask(folder / "masks" / f"{names[view.name]}.png", view.mask)


def _pixels(view: View, p_world: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
    """Where a view shows points, as COLMAP keeps it with their tracks."""
    p_image = transform_points(view.camera.T_cam_world, p_world) @ view.camera.K.T
    return p_image[:, :2] / np.maximum(p_image[:, 2:], 1e-6)


def _check_writable(scene: Scene) -> None:
    problems = []
    for view in scene.views:
        if view.camera.K[0, 1] != 0:
            problems.append(f"view {view.name}: its K has skew, which COLMAP's PINHOLE model cannot express")
    if problems:
        raise InputError.from_problems(f"scene {scene.name} cannot be written as COLMAP", problems)
