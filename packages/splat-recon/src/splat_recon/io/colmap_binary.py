"""COLMAP's binary files, read record by record: a file is refused unless its records end where the file ends."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from splat_recon.errors import InputError
from splat_recon.io.colmap_records import ModelCamera, ModelImage, ModelPoints
from splat_recon.io.pycolmap_import import pycolmap

_T = TypeVar("_T")

_POSE_BYTES = 7 * 8
"""A quaternion and a translation."""


class _Walker:
    """A position in the bytes of a file, moved by what is read there."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def unpack(self, layout: str) -> tuple:
        values = struct.unpack_from(layout, self._content, self.position)
        self.position += struct.calcsize(layout)
        return values

    def skip(self, num_bytes: int) -> None:
        self.position += num_bytes
        if self.position > len(self._content):
            raise struct.error("the records go on after the end of the file")

    def name(self) -> bytes:
        end = self._content.find(b"\0", self.position)
        if end < 0:
            raise struct.error("a name does not end")
        name = self._content[self.position : end]
        self.position = end + 1
        return name

    @property
    def num_left(self) -> int:
        return len(self._content) - self.position


def _records(path: Path, read: Callable[[_Walker], _T]) -> list[_T]:
    """All records of a file."""
    try:
        walker = _Walker(path.read_bytes())
        (count,) = walker.unpack("<Q")
        found = []
        for _ in range(count):
            found.append(read(walker))
    except (struct.error, ValueError, OverflowError) as error:
        raise InputError(f"{path} is cut short or not one of COLMAP's files ({error}): copy or make it again") from None
    if walker.num_left:
        raise InputError(f"{path} has {walker.num_left} bytes after its last record: copy or make it again")
    return found


def read_cameras(path: Path) -> dict[int, ModelCamera]:
    """The cameras of a ``cameras.bin`` by number."""
    return dict(_records(path, _camera))


def read_images(path: Path) -> list[ModelImage]:
    """The photos of an ``images.bin``, whose poses COLMAP writes there whether there are rigs or not."""
    return _records(path, _image)


def read_points(path: Path) -> ModelPoints:
    """The points of a ``points3D.bin``, sorted by number."""
    found = sorted(_records(path, _point), key=lambda point: point[0])
    return ModelPoints(
        p_world=np.array([xyz for _, xyz, _, _ in found], dtype=np.float64).reshape(-1, 3),
        rgb_u8=np.array([rgb for _, _, rgb, _ in found], dtype=np.uint8).reshape(-1, 3),
        image_ids=tuple(ids for _, _, _, ids in found),
    )


def rig_problems(folder: Path) -> list[str]:
    """What is wrong with a model's ``rigs.bin`` and ``frames.bin``, where they are there."""
    problems = []
    for name, walk in (("rigs.bin", _walk_rig), ("frames.bin", _walk_frame)):
        if (folder / name).is_file():
            try:
                _records(folder / name, walk)
            except InputError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(f"{folder / name} cannot be read: {error.strerror or error}")
    return problems


def _camera(walker: _Walker) -> tuple[int, ModelCamera]:
    camera_id, model_id, width, height = walker.unpack("<IiQQ")
    model = pycolmap.CameraModelId(model_id)
    if model == pycolmap.CameraModelId.INVALID:
        raise ValueError("a camera has no model")
    num_params = len(pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1).params)
    params = walker.unpack(f"<{num_params}d")
    return camera_id, ModelCamera(model=model.name, width=width, height=height, params=params)


def _image(walker: _Walker) -> ModelImage:
    image_id, *pose, camera_id = walker.unpack("<I7dI")
    name = walker.name().decode("utf-8", "surrogateescape")
    (num_points2d,) = walker.unpack("<Q")
    walker.skip(num_points2d * (8 + 8 + 8))
    quat_wxyz, translation = tuple(pose[:4]), tuple(pose[4:])
    return ModelImage(image_id=image_id, name=name, camera_id=camera_id, quat_wxyz=quat_wxyz, translation=translation)  # pyright: ignore[reportArgumentType]


def _point(walker: _Walker) -> tuple[int, tuple, tuple, tuple[int, ...]]:
    point_id, x, y, z, red, green, blue, _, track_length = walker.unpack("<Q3d3BdQ")
    before = walker.position
    walker.skip(track_length * (4 + 4))
    walker.position = before
    image_ids = walker.unpack(f"<{2 * track_length}I")[::2]
    return point_id, (x, y, z), (red, green, blue), tuple(dict.fromkeys(image_ids))


def _walk_rig(walker: _Walker) -> None:
    _, num_sensors = walker.unpack("<II")
    if num_sensors:
        walker.skip(4 + 4)
    for _ in range(num_sensors - 1):
        _, _, has_pose = walker.unpack("<iIB")
        walker.skip(_POSE_BYTES if has_pose else 0)


def _walk_frame(walker: _Walker) -> None:
    walker.skip(4 + 4 + _POSE_BYTES)
    (num_data,) = walker.unpack("<I")
    walker.skip(num_data * (4 + 4 + 8))
