"""Cameras without photos, to render from: a COLMAP model, transforms.json, nerfstudio's camera_path.json, a run's own.

All of them come out in COLMAP's frame, distortion left aside. nerfstudio's camera_path.json is in the frame that
nerfstudio trained in; with the `dataparser_transforms.json` of its run beside it, it is brought to COLMAP's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colmap_models import find_model, read_model, shown
from colmap_models.folders import has_part
from splat_recon.errors import InputError
from splat_recon.io import cameras_json
from splat_recon.io.colmap import posed_photos
from splat_recon.io.drawn_cameras import drawn_camera, say_fisheyes
from splat_recon.io.frames_of_layouts import frames_of, splatting_frames
from splat_recon.io.json_files import angle, num_pixels, positive_number, read_json_file
from splat_recon.io.layouts import CAMERAS_FILE, Layout, layout_of, scene_layout
from splat_recon.io.nerfstudio_frame import colmap_from_nerfstudio
from splat_recon.io.transforms_json import T_OPENGL_OPENCV, frames_cameras, read_transforms_cameras
from splat_render.cameras import Camera
from splat_render.poses import inverse, transform_camera

PERSPECTIVE = "perspective"
"""nerfstudio's name of the projection that is drawn."""

DEFAULT_HEIGHT = 720
"""Height of the images of a camera_path.json that names none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraFile:
    """Cameras in the order of the file, for COLMAP by the photos' names."""

    cameras: list[Camera]
    """In COLMAP's frame."""

    names: list[str]
    """What each is called."""

    fps: float | None = None
    """Frames per second, where the file says."""


def read_camera_file(path: Path | str) -> CameraFile:
    """Read cameras from a file or a folder; the content says which kind it is.

    Args:
        path: A scene folder of any layout that is read, a folder with a COLMAP model, or a JSON file: transforms.json,
            camera_path.json, cameras.json of a run or of the 3D Gaussian Splatting code.
    """
    path = Path(path)
    if path.is_dir():
        if has_part(path):
            return _colmap(path)
        if layout_of(path) is None and (path / CAMERAS_FILE).is_file():
            return read_camera_file(path / CAMERAS_FILE)
        layout = scene_layout(path)
        return _colmap(find_model(path)) if layout is Layout.COLMAP else _of_layout(path, layout)
    content = _content(path)
    if isinstance(content, list):
        return _checked(_bare_names(frames_cameras(splatting_frames(path))))
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no cameras: expected a JSON object")
    try:
        if isinstance(content.get("camera_path"), list):
            return _nerfstudio_path(path, content)
        if isinstance(content.get("frames"), list):
            return _checked(read_transforms_cameras(path))
        if isinstance(content.get("cameras"), dict):
            return _own(content)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise InputError(f"{path} holds a camera that cannot be understood: {error!r}") from None
    raise InputError(
        f'{path} holds no cameras: expected "frames" (transforms.json), "camera_path" (nerfstudio) or "cameras" '
        "(cameras.json of a run)"
    )


def _of_layout(folder: Path, layout: Layout) -> CameraFile:
    if layout is Layout.GAUSSIAN_SPLATTING:
        return read_camera_file(folder / CAMERAS_FILE)
    return _checked(frames_cameras(frames_of(folder, layout)))


def _bare_names(cameras: Mapping[str, Camera]) -> dict[str, Camera]:
    return {name.removeprefix("images/"): camera for name, camera in cameras.items()}


def _content(path: Path) -> Any:
    return read_json_file(path)


def _checked(cameras: Mapping[str, Camera], fps: float | None = None) -> CameraFile:
    if not cameras:
        raise ValueError("there is none")
    return CameraFile(cameras=list(cameras.values()), names=list(cameras), fps=fps)


def _colmap(folder: Path) -> CameraFile:
    problems: list[str] = []
    photos = posed_photos(read_model(folder), problems)
    if problems:
        raise InputError.from_problems(f"the COLMAP model {folder}", problems)
    found = {shown(photo.name): drawn_camera(photo.colmap_camera, photo.T_world_cam) for photo in photos}
    say_fisheyes([photo.colmap_camera for photo in photos])
    return _checked(found)


def _nerfstudio_path(path: Path, content: Mapping[str, Any]) -> CameraFile:
    projections = {str(content.get("camera_type", PERSPECTIVE))}
    projections |= {str(entry["camera_type"]) for entry in content["camera_path"] if "camera_type" in entry}
    other = sorted(projections - {PERSPECTIVE})
    if other:
        raise InputError(
            f'{path}: only perspective paths are drawn, and "camera_type" is {other[0]}: choose {PERSPECTIVE}'
        )
    height = num_pixels(content.get("render_height", DEFAULT_HEIGHT), f'{path}: "render_height"')
    cameras = {}
    T_colmap_file = colmap_from_nerfstudio(path)
    for index, entry in enumerate(content["camera_path"]):
        where = f"{path}, camera {index}"
        aspect = positive_number(entry.get("aspect", 16 / 9), f'{where}: "aspect"')
        width = num_pixels(content.get("render_width", round(height * aspect)), f'{where}: "render_width"')
        T_world_opengl = np.array(entry["camera_to_world"], dtype=np.float64).reshape(4, 4)
        # The field of view is the vertical one, in degrees.
        focal = 0.5 * height / math.tan(math.radians(angle(entry["fov"], f'{where}: "fov"', 180.0)) / 2)
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        camera = Camera(T_world_cam=T_world_opengl @ T_OPENGL_OPENCV, K=K, width=width, height=height)
        cameras[f"{index:06d}"] = transform_camera(T_colmap_file, camera)
    fps = content.get("fps")
    return _checked(cameras, None if fps is None else positive_number(fps, f'{path}: "fps"'))


def _own(content: Mapping[str, Any]) -> CameraFile:
    cameras, T_scene_colmap = cameras_json.from_content(content)
    return _checked({name: transform_camera(inverse(T_scene_colmap), camera) for name, camera in cameras.items()})
