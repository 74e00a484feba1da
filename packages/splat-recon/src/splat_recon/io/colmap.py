"""COLMAP folders: scenes from their photos and models, and back.

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

from colmap_models import ColmapModel, ModelImage, find_model, read_model, shown
from media_files.photos import WRITABLE_SUFFIXES
from output_files import check_links, output_names
from splat_recon.errors import InputError
from splat_recon.io.frames_of_layouts import frames_of, photos_are_elsewhere, trained_on
from splat_recon.io.image_folders import IMAGES, ImageFolder, choose_images
from splat_recon.io.images import write_mask, write_photo
from splat_recon.io.layouts import Layout, layout_of, scene_layout
from splat_recon.io.posed_photos import PosedPhoto, ReadOptions, camera_problem, points_in_sight, read_views, sources_of
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.transforms_json import read_frames
from splat_recon.io.undistort import UndistortedCache
from splat_recon.scene.photo_store import DEFAULT_PHOTO_BYTES, PhotoStore
from splat_recon.scene.scene import Points, Scene, View
from splat_render.poses import inverse, transform_camera, transform_points

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
    model_read = read_model(place)
    problems: list[str] = []
    photos = posed_photos(model_read, problems)
    points = _points(model_read, problems)
    where = choose_images(folder, {photo.name: photo.camera_size for photo in photos}, images, max_size)
    if where is None:
        missing = folder / (IMAGES if images == "auto" else images)
        raise InputError.from_problems(f"scene {folder}", [*problems, f"there is no folder {missing} with the photos"])
    _count_unregistered(photos, where)
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


def _count_unregistered(photos: Sequence[PosedPhoto], where: ImageFolder) -> None:
    registered = {path for photo in photos if (path := where.file(photo.name)) is not None}
    num_left = sum(where.path / name not in registered for name in where.names)
    if num_left:
        _log.info(
            "%d of %d photos in %s are not registered in the model: left alone", num_left, len(where.names), where.path
        )


def posed_photos(model: ColmapModel, problems: list[str]) -> list[PosedPhoto]:
    """The registered photos sorted by name; wrong poses and cameras are added to the problems, each camera once."""
    photos, wrong = [], set()
    for image in model.images:
        T_world_cam = image.T_world_cam
        if T_world_cam is None:
            problems.append(f"photo {shown(image.name)} has a pose that is not finite, or a quaternion of zeros")
            continue
        if image.camera_id in wrong:
            continue
        try:
            camera = _camera(model, image)
        except InputError as error:
            problems.append(str(error))
            wrong.add(image.camera_id)
            continue
        photos.append(PosedPhoto(name=image.name, colmap_camera=camera, T_world_cam=T_world_cam))
    return photos


def _camera(model: ColmapModel, image: ModelImage) -> pycolmap.Camera:
    """The camera of a photo.

    Raises:
        InputError: The model has none of this number, or it is no camera.
    """
    camera = model.camera_of(image)
    try:
        lens = pycolmap.Camera(
            camera_id=image.camera_id,
            model=camera.model,
            width=camera.width,
            height=camera.height,
            params=np.array(camera.params),
        )
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, OverflowError):
        size = f"{camera.width}x{camera.height}"[:40]
        raise InputError(f"camera {image.camera_id}: the size {size} is not that of a photo") from None
    if problem := camera_problem(lens):
        raise InputError(f"camera {image.camera_id}: {problem}")
    return lens


def _points(model: ColmapModel, problems: list[str]) -> Points | None:
    """The points in the order of their ids; None where there are none, or where they are a problem."""
    p_world = model.points.p_world
    if not len(p_world):
        return None
    num_wrong = int((~np.isfinite(p_world).all(axis=1)).sum())
    if num_wrong:
        problems.append(f"{num_wrong} of {len(p_world)} 3D points are not finite")
        return None
    return Points(p_world=p_world, rgb_u8=model.points.rgb_u8, seen_in=_seen_in(model))


def _seen_in(model: ColmapModel) -> dict[str, Int64[np.ndarray, " m"]]:
    """Which points each photo shows, from the points' tracks."""
    names = {image.image_id: shown(image.name) for image in model.images}
    found: dict[int, list[int]] = {}
    for index, image_ids in enumerate(model.points.image_ids):
        for image_id in image_ids:
            found.setdefault(image_id, []).append(index)
    return {names[image_id]: np.array(idx, dtype=np.int64) for image_id, idx in found.items() if image_id in names}


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
