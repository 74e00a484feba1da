"""Where images were taken or rendered from: poses read from the files that other programs write. Imports no torch.

Read are

- COLMAP models, binary or text (`images.bin`, `images.txt`): the model's folder, or a scene folder that holds it in
  `sparse/0`, `colmap/sparse/0` or `sparse`;
- `transforms.json` as nerfstudio writes it: `frames` with `file_path` and `transform_matrix`, camera to world with
  OpenGL axes; `applied_transform` and `applied_scale` are undone, so that the poses are those of the COLMAP model it
  was made from; or Blender's `transforms_train.json`, `_val` and `_test`, together;
- `cameras.json` as 3D Gaussian splatting writes it: a list with `img_name`, `position`, `rotation` (camera to world);
- a list of `{"image": name, "cam_from_world": 3x4 or 4x4}`, OpenCV axes.

Only poses are read: the reader knows no intrinsics, points or photos.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from difix_model.errors import InputError, first_problems

MODEL_FOLDERS = ("sparse/0", "colmap/sparse/0", "sparse", ".")
"""Where a folder may keep a COLMAP model, in the order they are tried."""

MODEL_FILES = ("images.bin", "images.txt")
SPLIT_FILES = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
JSON_FILES = ("transforms.json", *SPLIT_FILES, "cameras.json")

ROTATION_TOLERANCE = 1e-3
"""How far a rotation may be from orthonormal, as its largest wrong entry; text files are rounded."""

_HEADER = struct.Struct("<I7dI")
_KEYPOINT_BYTES = 24

Pose = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, kw_only=True)
class CameraPoses:
    """Poses by image name, all in one world."""

    source: Path
    """The file they were read from."""

    T_world_cam: Mapping[str, Pose]
    """Camera to world, OpenCV axes, by the image's name in that file (with folders, slashes forward)."""

    def of(self, image: Path) -> Pose | None:
        """Find an image file's pose: by as much of its path as the list names, otherwise by its name without suffix.

        Returns:
            None if the image is not listed, or several entries fit equally well.
        """
        parts = image.parts
        for count in range(len(parts), 0, -1):
            name = "/".join(parts[-count:])
            for listed in (name, name.removesuffix(image.suffix)) if count > 1 else (name,):
                if (found := self.T_world_cam.get(listed)) is not None:
                    return found
        for alike in (self._by_name.get(image.name, ()), self._by_stem.get(image.stem, ())):
            if len(alike) == 1:
                return self.T_world_cam[alike[0]]
        return None

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        return _grouped(self.T_world_cam, lambda name: PurePosixPath(name).name)

    @cached_property
    def _by_stem(self) -> Mapping[str, list[str]]:
        return _grouped(self.T_world_cam, lambda name: PurePosixPath(name).stem)


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def find_poses(folder: Path) -> CameraPoses | None:
    """Read the cameras that lie in a folder or beside it (`images/` next to `sparse/0`); None if there are none.

    Raises:
        InputError: If there are some, and they cannot be read.
    """
    for place in (folder, folder.parent):
        if (found := _poses_file(place)) is not None:
            return read_poses(found)
    return None


def read_poses(path: Path) -> CameraPoses:
    """Read poses from a COLMAP folder or a JSON file; the module says which kinds.

    Raises:
        InputError: If it is absent, damaged, or of another kind; it names the first ten problems.
    """
    if not path.exists():
        raise InputError(f"the cameras {path} do not exist")
    file = _poses_file(path) if path.is_dir() else path
    if file is None:
        raise InputError(
            f"{path} holds no cameras: expected a COLMAP model ({' or '.join(MODEL_FILES)}, also in "
            f"{', '.join(MODEL_FOLDERS[:-1])}) or one of {', '.join(JSON_FILES)}"
        )
    readers: dict[str, Callable[[Path], dict[str, Pose]]] = {".bin": _read_binary, ".txt": _read_text}
    if file.suffix.lower() not in (".json", *readers):
        raise InputError(f"{file} holds no cameras that can be read: use a COLMAP folder or a JSON file")
    try:
        poses = readers.get(file.suffix.lower(), _read_json)(file)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError, struct.error, ArithmeticError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} does not hold cameras in a known form, or is damaged") from error
    problems = [f"the pose of {name} is no rotation and position" for name in poses if not _is_rigid(poses[name])]
    if problems:
        raise InputError(f"{file}: {first_problems(problems)}")
    if not poses:
        raise InputError(f"{file} holds no cameras")
    return CameraPoses(source=file, T_world_cam=poses)


def poses_extent(T_world_cam: Float64[np.ndarray, "n 4 4"]) -> float:
    """Largest distance of a camera center from their mean; 1 if all cameras stand in one place."""
    centers = T_world_cam[:, :3, 3]
    extent = float(np.linalg.norm(centers - centers.mean(axis=0), axis=-1).max())
    return extent if extent > 1e-9 * max(1.0, float(np.abs(centers).max())) else 1.0


def _poses_file(folder: Path) -> Path | None:
    candidates = [folder / place / name for place in MODEL_FOLDERS for name in MODEL_FILES]
    candidates += [folder / name for name in JSON_FILES]
    return next((path for path in candidates if path.is_file()), None)


def _read_binary(path: Path) -> dict[str, Pose]:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data, 0)
    offset, poses = 8, {}
    for _ in range(count):
        _, qw, qx, qy, qz, tx, ty, tz, _ = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        end = data.index(b"\0", offset)
        name = data[offset:end].decode("utf-8", "surrogateescape")
        (num_keypoints,) = struct.unpack_from("<Q", data, end + 1)
        offset = end + 9 + num_keypoints * _KEYPOINT_BYTES
        if offset > len(data):
            raise ValueError("the file ends too early")
        poses[_posix(name)] = _from_colmap((qw, qx, qy, qz), (tx, ty, tz))
    return poses


def _read_text(path: Path) -> dict[str, Pose]:
    """Every image has two lines, and the second, with its keypoints, may be empty or, in scripts' files, missing."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    poses = {}
    after_image = False
    for line in content.decode("utf-8", "surrogateescape").replace("\r", "\n").split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if after_image and _is_keypoints(line):
            after_image = False
            continue
        _, qw, qx, qy, qz, tx, ty, tz, _, name = line.split(maxsplit=9)
        quat_wxyz, position = (float(qw), float(qx), float(qy), float(qz)), (float(tx), float(ty), float(tz))
        poses[_posix(name.strip())] = _from_colmap(quat_wxyz, position)
        after_image = True
    return poses


def _is_keypoints(line: str) -> bool:
    """Whether a line holds X Y POINT3D_ID, any number of times."""
    words = line.split()
    try:
        _ = [float(word) for word in words], [int(word) for word in words[2::3]]
    except ValueError:
        return False
    return len(words) % 3 == 0


def _read_json(path: Path) -> dict[str, Pose]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict) and "frames" in content:
        poses = _frame_poses(content)
        for beside in (path.with_name(name) for name in SPLIT_FILES if path.name in SPLIT_FILES and name != path.name):
            if beside.is_file():
                poses |= _frame_poses(json.loads(beside.read_text(encoding="utf-8-sig")))
        return poses
    return dict(_listed_pose(entry) for entry in content)


def _frame_poses(content: Mapping[str, Any]) -> dict[str, Pose]:
    applied, poses = np.eye(4), {}
    if "applied_transform" in content:
        applied[:3] = np.array(content["applied_transform"], dtype=np.float64)[:3]
    undo = np.linalg.inv(applied)
    opencv_from_opengl = np.diag([1.0, -1.0, -1.0, 1.0])
    for frame in content["frames"]:
        T_file_opengl = _square(frame["transform_matrix"])
        T_file_opengl[:3, 3] /= float(content.get("applied_scale", 1.0))
        poses[_posix(frame["file_path"])] = undo @ T_file_opengl @ opencv_from_opengl
    return poses


def _listed_pose(entry: Mapping[str, Any]) -> tuple[str, Pose]:
    if "cam_from_world" in entry:
        return _posix(entry["image"]), np.linalg.inv(_square(entry["cam_from_world"]))
    T_world_cam = np.eye(4)
    T_world_cam[:3, :3] = np.array(entry["rotation"], dtype=np.float64)
    T_world_cam[:3, 3] = np.array(entry["position"], dtype=np.float64)
    return _posix(entry["img_name"]), T_world_cam


def _from_colmap(quat_wxyz: tuple[float, ...], translation: tuple[float, ...]) -> Pose:
    """COLMAP stores world to camera."""
    size = np.linalg.norm(quat_wxyz)
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"{quat_wxyz} is no rotation")
    w, x, y, z = np.array(quat_wxyz) / size
    R_cam_world = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    T_world_cam = np.eye(4)
    T_world_cam[:3, :3] = R_cam_world.T
    T_world_cam[:3, 3] = -R_cam_world.T @ np.array(translation)
    return T_world_cam


def _square(matrix: Any) -> Pose:
    T = np.eye(4)
    given = np.array(matrix, dtype=np.float64)
    if given.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"expected a 3x4 or 4x4 matrix, got {given.shape}")
    T[: given.shape[0]] = given
    return T


def _is_rigid(T: Pose) -> bool:
    if not np.isfinite(T).all():
        return False
    R = T[:3, :3]
    return bool(
        np.abs(R @ R.T - np.eye(3)).max() <= ROTATION_TOLERANCE
        and np.linalg.det(R) > 0
        and np.abs(T[3] - [0, 0, 0, 1]).max() <= ROTATION_TOLERANCE
    )


def _posix(name: str) -> str:
    return str(PurePosixPath(str(name).replace("\\", "/")))
