"""Cameras of other programs as frames of a transforms.json, which is how they are read.

Blender's synthetic scenes, Polycam and Record3D have OpenGL's axes, as transforms.json does; 3D Gaussian Splatting's
cameras.json has COLMAP's, which are turned here.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from splat_recon.errors import InputError
from splat_recon.io.image_folders import listed
from splat_recon.io.json_files import read_json_file
from splat_recon.io.layouts import (
    CAMERAS_FILE,
    RECORD3D_FILE,
    SPLIT_FILES,
    TRANSFORMS_FILE,
    Layout,
    polycam_folders,
    record3d_folder,
)
from splat_recon.io.transforms_json import T_OPENGL_OPENCV, FramesFile, read_frames_file
from splat_render.files.folders import newest_splat
from splat_render.poses import matrix_from_quat_wxyz, rigid

INPUT_POINTS = "input.ply"
"""Points that a 3D Gaussian Splatting output was trained from."""


def frames_of(folder: Path, layout: Layout) -> FramesFile:
    """The frames of a scene folder.

    Args:
        layout: What `scene_layout` found; all but COLMAP.

    Raises:
        InputError: The files of this layout cannot be read.
    """
    if layout is Layout.TRANSFORMS:
        return read_frames_file(folder / TRANSFORMS_FILE)
    if layout is Layout.BLENDER:
        return _blender(folder)
    if layout is Layout.POLYCAM:
        return _polycam(folder)
    if layout is Layout.RECORD3D:
        return _record3d(folder)
    if layout is Layout.GAUSSIAN_SPLATTING:
        return splatting_frames(folder / CAMERAS_FILE)
    raise ValueError(f"a scene in the layout {layout} has no frames")


def trained_on(folder: Path) -> Path | None:
    """The scene folder that a 3D Gaussian Splatting output was trained on, as its `cfg_args` names it."""
    try:
        text = (folder / "cfg_args").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"source_path=(['\"])(.+?)\1", text)
    return Path(match[2]) if match else None


def photos_are_elsewhere(folder: Path) -> InputError:
    """What to say of a 3D Gaussian Splatting output whose photos are not there."""
    source, splat = trained_on(folder), newest_splat(folder)
    where = f" {source}" if source is not None else ""
    found = f"; its splat is {splat}" if splat is not None else ""
    return InputError(
        f"{folder} is an output folder of the 3D Gaussian Splatting code and holds no photos: give the scene folder it "
        f"was trained on{where}, or put its photos into {folder / 'images'}{found}"
    )


def splatting_frames(path: Path) -> FramesFile:
    """The cameras of 3D Gaussian Splatting's cameras.json, by their names without ending."""
    entries = _json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} holds no cameras: expected a list as the 3D Gaussian Splatting code writes it")
    photos = _photos_by_stem(path.parent)
    frames, problems = [], []
    for index, entry in enumerate(entries):
        try:
            frames.append(_splatting_frame(entry, photos))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problems.append(f"entry {index} is no camera ({error!r})")
    if problems:
        raise InputError.from_problems(f"cameras {path}", problems)
    points = path.parent / INPUT_POINTS
    content = {"ply_file_path": INPUT_POINTS} if points.is_file() else {}
    return FramesFile(path=path, content=content, frames=frames)


def _splatting_frame(entry: Mapping[str, Any], photos: Mapping[str, list[str]]) -> dict[str, Any]:
    T_world_cam = rigid(np.array(entry["rotation"], dtype=np.float64), np.array(entry["position"], dtype=np.float64))
    name = str(entry["img_name"]).replace("\\", "/")
    # The code keeps only the last part of a name, and of that, in its first version, what stands before the ending.
    found = photos.get(_bare(name), [])
    if len(found) > 1:
        raise ValueError(f"{name} may be {found[0]} or {found[1]}")
    return {
        "file_path": f"images/{found[0] if found else name}",
        "transform_matrix": (T_world_cam @ T_OPENGL_OPENCV).tolist(),
        "fl_x": float(entry["fx"]),
        "fl_y": float(entry["fy"]),
        "w": int(entry["width"]),
        "h": int(entry["height"]),
    }


def _photos_by_stem(folder: Path) -> dict[str, list[str]]:
    if not (folder / "images").is_dir():
        return {}
    found: dict[str, list[str]] = {}
    for name in sorted(listed(folder / "images").names):
        found.setdefault(_bare(name), []).append(name)
    return found


def _bare(name: str) -> str:
    return PurePosixPath(name).name.split(".")[0]


def _blender(folder: Path) -> FramesFile:
    """The frames of all of the split's files, each with what its file says of all."""
    frames = []
    for path in (folder / name for name in SPLIT_FILES if (folder / name).is_file()):
        file = read_frames_file(path)
        if not np.array_equal(file.T_file_colmap, np.eye(4)):
            raise InputError(f'{path}: "applied_transform" is read from transforms.json only')
        shared = {key: value for key, value in file.content.items() if key != "frames"}
        frames += [{**shared, **frame} for frame in file.frames]
    shared = {key: value for key, value in frames[0].items() if key == "ply_file_path"}
    return FramesFile(path=folder / SPLIT_FILES[0], content=shared, frames=frames)


def _polycam(folder: Path) -> FramesFile:
    """Polycam's raw export: a JSON file per photo, in ARKit's world."""
    found = polycam_folders(folder)
    if found is None:
        raise InputError(f"{folder} holds no export of Polycam: expected keyframes/images and keyframes/cameras")
    photos, cameras = found
    frames, problems = [], []
    names = {Path(name).stem: name for name in sorted(listed(photos).names)}
    for path in sorted(cameras.glob("*.json")):
        if path.stem not in names:
            continue
        try:
            frames.append(_polycam_frame(_json(path), names[path.stem]))
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{path.name} holds no camera of Polycam ({error!r})")
    if not frames and not problems:
        problems.append(f"none of the cameras belongs to a photo in {photos}")
    if problems:
        raise InputError.from_problems(f"Polycam export {folder}", problems)
    return FramesFile(path=cameras, content={}, frames=frames, scene=folder, photos=photos)


def _polycam_frame(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    # ARKit's y axis points up; rows in the order z, x, y give a world with z up, which nerfstudio makes of it as well.
    rows = [[float(entry[f"t_{row}{column}"]) for column in range(4)] for row in (2, 0, 1)]
    return {
        "file_path": name,
        "transform_matrix": [*rows, [0.0, 0.0, 0.0, 1.0]],
        **{key: float(entry[theirs]) for key, theirs in (("fl_x", "fx"), ("fl_y", "fy"), ("cx", "cx"), ("cy", "cy"))},
        "w": int(entry["width"]),
        "h": int(entry["height"]),
    }


def _record3d(folder: Path) -> FramesFile:
    """Record3D's EXR + RGB export: rgb/0.jpg, rgb/1.jpg, ..., and poses and intrinsics in metadata.json."""
    place = record3d_folder(folder)
    if place is None:
        raise InputError(f"{folder} holds no export of Record3D: expected rgb/ and metadata.json")
    path = place / RECORD3D_FILE
    content = _json(path)
    names = [name for name in sorted(listed(place / "rgb").names) if Path(name).stem.isdigit()]
    try:
        # Quaternions x y z w, then positions; the matrix of intrinsics by columns.
        poses = np.array(content["poses"], dtype=np.float64).reshape(-1, 7)
        K = np.array(content["K"], dtype=np.float64).reshape(3, 3).T
        lens = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
        size = {"w": int(content["w"]), "h": int(content["h"])}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} does not hold Record3D's poses, K, w and h ({error!r})") from None
    beyond = [name for name in names if int(Path(name).stem) >= len(poses)]
    if beyond or not names:
        what = f"has no pose for rgb/{beyond[0]}" if beyond else f"belongs to no photo in {place / 'rgb'}"
        raise InputError(f"{path} {what}: export the capture again")
    frames = [
        {"file_path": name, "transform_matrix": _from_quat(poses[int(Path(name).stem)]).tolist()}
        for name in sorted(names, key=lambda name: int(Path(name).stem))
    ]
    return FramesFile(path=path, content={**lens, **size}, frames=frames, scene=folder, photos=place / "rgb")


def _from_quat(pose: Float64[np.ndarray, " 7"]) -> Float64[np.ndarray, "4 4"]:
    return rigid(matrix_from_quat_wxyz(pose[[3, 0, 1, 2]]), pose[4:])


def _json(path: Path) -> Any:
    return read_json_file(path)
