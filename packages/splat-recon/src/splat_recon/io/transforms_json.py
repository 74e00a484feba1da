"""nerfstudio's transforms.json: the only file that knows its conventions.

Cameras there are OpenGL's (x right, y up, z backward), intrinsics OpenCV's, in pixels, for all frames or for each.
Principal points count from the corner of the image, as here.
"""

import glob
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from media_files import image_size
from media_files.photos import WRITABLE_SUFFIXES
from output_files import check_links, output_names, write_text_whole
from splat_recon.errors import InputError
from splat_recon.io.drawn_cameras import drawn_camera, say_fisheyes
from splat_recon.io.image_folders import IMAGES, ImageFolder, choose_images, listed
from splat_recon.io.images import write_mask, write_photo
from splat_recon.io.json_files import angle, finite_number, num_pixels, positive_number, read_json_file
from splat_recon.io.layouts import TRANSFORMS_FILE
from splat_recon.io.point_files import read_points_ply, write_points_ply
from splat_recon.io.posed_photos import PosedPhoto, ReadOptions, camera_problem, points_in_sight, read_views, sources_of
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.scene.scene import Points, Scene
from splat_render.cameras import MAX_ROTATION_ERROR, Camera
from splat_render.poses import inverse, transform_camera, transform_points

POINTS_FILE = "sparse_pc.ply"
"""Points beside it, where the file names none."""

T_OPENGL_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes: y and z point the other way."""

PARAMETERS = {
    "OPENCV": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "OPENCV_FISHEYE": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4"),
    "PINHOLE": ("fl_x", "fl_y", "cx", "cy"),
}
"""COLMAP's parameters by nerfstudio's names."""

LENS_KEYS = ("w", "h", "camera_angle_x", "camera_angle_y", *PARAMETERS["FULL_OPENCV"])
"""Numbers of a lens."""

OTHER_PROJECTIONS = ("equirectangular", "latlong", "ftheta_p0")
"""instant-ngp's marks of lenses that are not read."""

PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV", "PERSPECTIVE")
"""Names of lenses whose distortion, if any, is OpenCV's."""


@dataclass(frozen=True, kw_only=True)
class FramesFile:
    """Frames of a transforms.json, or of a file that says the same in another way."""

    path: Path
    """The file, for messages and for where its folder is."""

    content: dict[str, Any]
    """What the file says of all frames."""

    frames: list[dict[str, Any]]
    """At least one; in each, `file_path`, `transform_matrix` and perhaps intrinsics, by nerfstudio's names."""

    T_file_colmap: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    """Similarity from COLMAP's frame to the file's."""

    scene: Path | None = None
    """The scene folder, where it is another than the file's."""

    photos: Path | None = None
    """What the frames' names are relative to, where it is not the scene folder."""

    @property
    def folder(self) -> Path:
        """The scene folder."""
        return self.scene or self.path.parent


def read_transforms(path: Path | str, *, images: str = "auto", options: ReadOptions | None = None) -> Scene:
    """Read a transforms.json, its photos and its points.

    Points come from the file that ``ply_file_path`` names, else from sparse_pc.ply beside it; where there are none,
    they are drawn at random in what the cameras see, and a warning says so. Frames without a photo are problems.

    Args:
        images: As for `read_scene`; counts where the frames' photos lie in ``images/``.

    Returns:
        The scene in the file's frame; ``applied_transform`` and ``applied_scale`` lead back to COLMAP's.

    Raises:
        InputError: Anything is wrong with the file or what it names.
    """
    return read_frames(read_frames_file(Path(path)), images=images, options=options)


def read_frames(file: FramesFile, *, images: str = "auto", options: ReadOptions | None = None) -> Scene:
    """`read_transforms` for frames that are known already.

    Raises:
        InputError: Anything is wrong with the frames or what they name.
    """
    options = options or ReadOptions()
    where = f"scene {file.path}"
    problems: list[str] = []
    names = _names(file, problems)
    root, names, in_images = _image_root(file, names)
    folder = listed(root)
    photos = [
        photo
        for frame, name in zip(file.frames, names, strict=True)
        if name and (photo := _posed_photo(file, frame, name, folder, problems)) is not None
    ]
    if problems:
        raise InputError.from_problems(where, problems)
    if in_images:
        chosen = choose_images(
            file.folder, {photo.name: photo.camera_size for photo in photos}, images, options.max_size
        )
        folder = chosen or folder
    views = read_views(photos, file.folder, folder, options, problems)
    points = _points(file, photos, problems)
    if problems:
        raise InputError.from_problems(where, problems)
    name = file.folder.resolve().name
    sources = (file.path, *sources_of(photos, file.folder, folder))
    return Scene(views=tuple(views), points=points, T_scene_colmap=file.T_file_colmap, name=name, sources=sources)


def read_transforms_cameras(path: Path | str) -> dict[str, Camera]:
    """The cameras of a transforms.json alone, in COLMAP's frame and in the order of the file, distortion left aside.

    Photos need not be there, unless the file does not say how large they are.
    """
    return frames_cameras(read_frames_file(Path(path)))


def frames_cameras(file: FramesFile) -> dict[str, Camera]:
    """`read_transforms_cameras` for frames that are known already."""
    T_colmap_file = inverse(file.T_file_colmap)
    cameras: dict[str, Camera] = {}
    problems: list[str] = []
    lenses: list[pycolmap.Camera] = []
    for index, frame in enumerate(file.frames):
        name = PurePosixPath(str(frame.get("file_path", index)).replace("\\", "/")).as_posix()
        root = file.photos or file.folder
        path = _with_ending(root / name)
        try:
            T_world_cam = _pose(frame, name)
            lens = _lens({**file.content, **frame}, path)
        except InputError as error:
            problems.append(str(error))
            continue
        lenses.append(lens)
        camera = drawn_camera(lens, T_world_cam)
        if path.is_file() and path.is_relative_to(root):
            name = path.relative_to(root).as_posix()
        cameras[name if name not in cameras else f"{name} {index}"] = transform_camera(T_colmap_file, camera)
    if problems:
        raise InputError.from_problems(f"cameras {file.path}", problems)
    say_fisheyes(lenses)
    return cameras


def _with_ending(path: Path) -> Path:
    """A photo named without its ending."""
    if path.is_file():
        return path
    found = sorted(path.parent.glob(f"{glob.escape(path.name)}.*"))
    return next((one for one in found if one.is_file()), path)


def read_frames_file(path: Path) -> FramesFile:
    """The content of a transforms.json, checked to have frames."""
    content = read_json_file(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f'{path} is not a transforms.json: expected an object with a list "frames" that is not empty')
    T_file_colmap = np.eye(4)
    applied = _matrix(content.get("applied_transform", np.eye(4)[:3].tolist()), (3, 4))
    if applied is None:
        raise InputError(f'{path}: "applied_transform" must be a 3x4 matrix of finite numbers')
    scale = positive_number(content.get("applied_scale", 1.0), f'{path}: "applied_scale"')
    size = np.cbrt(np.linalg.det(applied[:, :3]))
    if not size > 0 or not np.abs(applied[:, :3] @ applied[:, :3].T / size**2 - np.eye(3)).max() <= 1e-5:
        raise InputError(f'{path}: "applied_transform" is no rotation, scale and translation: it mirrors or shears')
    T_file_colmap[:3] = scale * applied
    return FramesFile(path=path, content=content, frames=frames, T_file_colmap=T_file_colmap)


def _matrix(value: Any, shape: tuple[int, int]) -> Float64[np.ndarray, "r c"] | None:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if matrix.shape == (4, 4) and shape == (3, 4):
        matrix = matrix[:3]
    return matrix if matrix.shape == shape and np.isfinite(matrix).all() else None


def _names(file: FramesFile, problems: list[str]) -> list[str]:
    """The frames' photos relative to the file; "" where a frame names none."""
    names = []
    for index, frame in enumerate(file.frames):
        name = frame.get("file_path")
        if not isinstance(name, str) or not name:
            problems.append(f'frame {index} has no "file_path"')
            name = ""
        names.append(PurePosixPath(name.replace("\\", "/")).as_posix() if name else "")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    problems += [f"{name} comes in several frames" for name in twice]
    return names


def _image_root(file: FramesFile, names: Sequence[str]) -> tuple[Path, list[str], bool]:
    """The folder that names are relative to: ``images`` where all photos lie there, else that of the file."""
    if file.photos is not None:
        return file.photos, list(names), False
    folder = file.folder
    prefix = f"{IMAGES}/"
    if all(name.startswith(prefix) for name in names) and (folder / IMAGES).is_dir():
        return folder / IMAGES, [name.removeprefix(prefix) for name in names], True
    return folder, list(names), False


def _posed_photo(
    file: FramesFile, frame: Mapping[str, Any], name: str, folder: ImageFolder, problems: list[str]
) -> PosedPhoto | None:
    path = folder.file(name)
    if path is None:
        problems.append(folder.problem(name))
        return None
    try:
        T_world_cam = _pose(frame, name)
        camera = _lens({**file.content, **frame}, path)
    except InputError as error:
        problems.append(str(error))
        return None
    mask_path = _mask_path(file, frame, problems)
    # The photo's own ending makes the name, so that what is written under the name has a format.
    name = folder.candidates(name)[0]
    return PosedPhoto(name=name, colmap_camera=camera, T_world_cam=T_world_cam, mask_path=mask_path)


def _mask_path(file: FramesFile, frame: Mapping[str, Any], problems: list[str]) -> Path | None:
    """The mask's file as a frame names it, perhaps with backslashes or in another case or Unicode form."""
    name = frame.get("mask_path")
    if not isinstance(name, str) or not name:
        return None
    place = file.folder / PurePosixPath(name.replace("\\", "/")).parent
    # Windows' drives lead nowhere here, and hidden folders are left alone in listings only.
    beside = listed(place) if place.is_dir() else None
    found = [] if beside is None else beside.candidates(PurePosixPath(name.replace("\\", "/")).name)
    if len(found) > 1:
        problems.append(f"mask {name} may be {' or '.join(found[:4])} in {place}: rename or remove all but one")
        return None
    return place / found[0] if found else file.folder / name.replace("\\", "/")


def _pose(frame: Mapping[str, Any], name: str) -> Float64[np.ndarray, "4 4"]:
    """Camera to the file's world."""
    T_file_opengl = _matrix(frame.get("transform_matrix"), (4, 4))
    if T_file_opengl is None:
        raise InputError(f'{name}: "transform_matrix" must be a 4x4 matrix of finite numbers')
    R = T_file_opengl[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        is_rotation = np.abs(R @ R.T - np.eye(3)).max() <= MAX_ROTATION_ERROR / 2 and np.linalg.det(R) > 0
    if not is_rotation:
        raise InputError(f'{name}: "transform_matrix" is no rotation and translation')
    if not np.array_equal(T_file_opengl[3], (0, 0, 0, 1)):
        raise InputError(f'{name}: the last row of "transform_matrix" must be 0 0 0 1, got {T_file_opengl[3].tolist()}')
    return T_file_opengl @ T_OPENGL_OPENCV


def _lens(values: Mapping[str, Any], path: Path) -> pycolmap.Camera:
    """The camera of a frame, from its own values and the file's."""
    given = {key: values[key] for key in LENS_KEYS if values.get(key) is not None}
    numbers = {key: finite_number(value, f'photo {path}: "{key}"') for key, value in given.items()}
    if not {"w", "h"} <= numbers.keys():
        size = image_size(path, upright=False)
        numbers = {"w": size[0], "h": size[1], **numbers}
    width, height = (num_pixels(numbers[key], f'photo {path}: "{key}"') for key in ("w", "h"))
    angles = {
        key: angle(numbers[key], f'photo {path}: "{key}"', math.pi)
        for key in ("camera_angle_x", "camera_angle_y")
        if key in numbers
    }
    if "fl_x" not in numbers and "camera_angle_x" in angles:
        numbers["fl_x"] = 0.5 * width / math.tan(0.5 * angles["camera_angle_x"])
    if "fl_y" not in numbers and "camera_angle_y" in angles and "fl_x" not in given:
        numbers["fl_y"] = 0.5 * height / math.tan(0.5 * angles["camera_angle_y"])
    if "fl_x" not in numbers:
        raise InputError(f'photo {path}: there is no focal length: neither "fl_x" nor "camera_angle_x"')
    defaults = {"fl_y": numbers["fl_x"], "cx": width / 2, "cy": height / 2}
    model = str(values.get("camera_model", "OPENCV")).upper()
    other = [name for name in OTHER_PROJECTIONS if values.get(name)]
    if other:
        raise InputError(f'photo {path}: "{other[0]}" is no projection that is read: cut the photos to pinhole views')
    if values.get("is_fisheye") and model in PERSPECTIVE:
        # instant-ngp's flag: its k1 to k4 are those of OpenCV's fisheye.
        model = "OPENCV_FISHEYE"
    if model in PERSPECTIVE:
        distortion = [name for name in PARAMETERS["FULL_OPENCV"][4:] if numbers.get(name, 0.0)]
        full = any(name in ("k3", "k4", "k5", "k6") for name in distortion)
        model = "FULL_OPENCV" if full else "OPENCV" if distortion else "PINHOLE"
    elif model != "OPENCV_FISHEYE":
        raise InputError(f'photo {path}: "camera_model" {model} is none of OPENCV, OPENCV_FISHEYE, PINHOLE')
    numbers = {**dict.fromkeys(PARAMETERS[model], 0.0), **defaults, **numbers}
    params = [float(numbers[name]) for name in PARAMETERS[model]]
    camera = pycolmap.Camera(camera_id=1, model=model, width=width, height=height, params=np.array(params))
    problem = camera_problem(camera)
    if problem:
        raise InputError(f"photo {path}: {problem}")
    return camera


def _points(file: FramesFile, photos: Sequence[PosedPhoto], problems: list[str]) -> Points:
    named = file.content.get("ply_file_path")
    path = file.folder / (named.replace("\\", "/") if isinstance(named, str) and named else POINTS_FILE)
    if path.is_file():
        try:
            points = read_points_ply(path)
            if len(points):
                return points
        except InputError as error:
            problems.append(str(error))
    elif isinstance(named, str) and named:
        problems.append(f'points {path}, named by "ply_file_path", are missing')
    if problems:
        return Points(p_world=np.zeros((0, 3)), rgb_u8=np.zeros((0, 3), np.uint8))
    return points_in_sight(photos, f"{file.path} names no points")


def write_transforms(folder: Path | str, scene: Scene) -> None:
    """Write a folder that nerfstudio reads: transforms.json, images/, masks/ where there are any, sparse_pc.ply.

    A normalized scene goes back to COLMAP's frame. Cameras are pinholes, each frame with its own intrinsics.

    Raises:
        InputError: The folder cannot be written, or a camera has skew.
    """
    folder = Path(folder)
    names = output_names(scene.names, ending=".png", kept=WRITABLE_SUFFIXES)
    T_colmap_scene = inverse(scene.T_scene_colmap)
    problems, frames = [], []
    for view in scene.views:
        camera = transform_camera(T_colmap_scene, view.camera)
        if camera.K[0, 1] != 0:
            problems.append(f"view {view.name}: its K has skew, which transforms.json cannot express")
        frame: dict[str, Any] = {"file_path": f"{IMAGES}/{names[view.name]}"}
        if view.mask is not None:
            frame["mask_path"] = f"masks/{names[view.name]}.png"
        frame |= {"fl_x": camera.K[0, 0], "fl_y": camera.K[1, 1], "cx": camera.K[0, 2], "cy": camera.K[1, 2]}
        frame |= {"w": camera.width, "h": camera.height}
        frame["transform_matrix"] = (camera.T_world_cam @ T_OPENGL_OPENCV).tolist()
        frames.append(frame)
    if problems:
        raise InputError.from_problems(f"scene {scene.name} cannot be written as transforms.json", problems)
    check_links(folder)
    content: dict[str, Any] = {"camera_model": "OPENCV", "frames": frames}
    if len(scene.points):
        content["ply_file_path"] = POINTS_FILE
        p_colmap = transform_points(T_colmap_scene, scene.points.p_world)
        write_points_ply(folder / POINTS_FILE, Points(p_world=p_colmap, rgb_u8=scene.points.rgb_u8))
    for view in scene.views:
        write_photo(folder / IMAGES / names[view.name], view.rgb_u8)
        if view.mask is not None:
            write_mask(folder / "masks" / f"{names[view.name]}.png", view.mask)
    write_text_whole(folder / TRANSFORMS_FILE, json.dumps(content, indent=2) + "\n")
