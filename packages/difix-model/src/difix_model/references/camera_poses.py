"""Where images were taken or rendered from: poses read from the files that other programs write. Imports no torch.

Read are

- COLMAP models, binary or text (`images.bin`, `images.txt`): the model's folder, or a scene folder that holds it where
  `colmap_models` looks for one; of several models the one with the most photos;
- `transforms.json` as nerfstudio writes it: `frames` with `file_path` and `transform_matrix`, camera to world with
  OpenGL axes; `applied_transform` and `applied_scale` are undone, so that the poses are those of the COLMAP model it
  was made from; or Blender's `transforms_train.json`, `_val` and `_test`, together;
- `cameras.json` as 3D Gaussian splatting writes it: a list with `img_name`, `position`, `rotation` (camera to world);
- a list of `{"image": name, "cam_from_world": 3x4 or 4x4}`, OpenCV axes.

Only poses are read: the reader knows no intrinsics, points or photos.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from colmap_models import find_images, read_images, shown
from colmap_models.folders import ENDINGS, PLACES
from difix_model.errors import InputError, first_problems

SPLIT_FILES = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
JSON_FILES = ("transforms.json", *SPLIT_FILES, "cameras.json")

ROTATION_TOLERANCE = 1e-3
"""How far a rotation may be from orthonormal, as its largest wrong entry; text files are rounded."""

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
            f"{path} holds no cameras: expected a COLMAP model (images.bin or images.txt, also in {', '.join(PLACES)}) "
            f"or one of {', '.join(JSON_FILES)}"
        )
    ending = file.suffix.lower()
    if ending not in (".json", *ENDINGS):
        raise InputError(f"{file} holds no cameras that can be read: use a COLMAP folder or a JSON file")
    try:
        poses = _read_json(file) if ending == ".json" else _read_model(file)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} does not hold cameras in a known form, or is damaged") from error
    problems = [
        f"the pose of {shown(name)} is no rotation and position" for name in poses if not _is_rigid(poses[name])
    ]
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
    return find_images(folder) or next((path for name in JSON_FILES if (path := folder / name).is_file()), None)


def _read_model(path: Path) -> dict[str, Pose]:
    poses = {_posix(image.name): image.T_world_cam for image in read_images(path)}
    return {name: np.full((4, 4), np.nan) if T is None else T for name, T in poses.items()}


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
