"""COLMAP's binary files, read record by record: a file is refused unless its records end where the file ends."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from colmap_models.camera_models import CAMERA_MODELS
from colmap_models.errors import InputError, read_bytes
from colmap_models.records import ModelCamera, ModelImage, ModelPoints

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
        if self.num_left < 0:
            raise struct.error("the records go on after the end of the file")

    def name(self) -> str:
        end = self._content.find(b"\0", self.position)
        if end < 0:
            raise struct.error("a name does not end")
        name = self._content[self.position : end]
        self.position = end + 1
        return name.decode("utf-8", "surrogateescape")

    @property
    def num_left(self) -> int:
        return len(self._content) - self.position


def _records(path: Path, read: Callable[[_Walker], _T]) -> list[_T]:
    """All records of a file."""
    walker = _Walker(read_bytes(path))
    try:
        (count,) = walker.unpack("<Q")
        found = [read(walker) for _ in range(count)]
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
    return ModelPoints.of(_records(path, _point))


def check_rigs(path: Path) -> None:
    """Refuse a ``rigs.bin`` that is damaged; nothing in it is needed."""
    _records(path, _walk_rig)


def check_frames(path: Path) -> None:
    """Refuse a ``frames.bin`` that is damaged; nothing in it is needed."""
    _records(path, _walk_frame)


def _camera(walker: _Walker) -> tuple[int, ModelCamera]:
    camera_id, model_id, width, height = walker.unpack("<IiQQ")
    if model_id not in CAMERA_MODELS:
        raise ValueError(f"a camera has the unknown model {model_id}")
    model, num_params = CAMERA_MODELS[model_id]
    return camera_id, ModelCamera(model=model, width=width, height=height, params=walker.unpack(f"<{num_params}d"))


def _image(walker: _Walker) -> ModelImage:
    image_id, w, x, y, z, tx, ty, tz, camera_id = walker.unpack("<I7dI")
    name = walker.name()
    (num_points2d,) = walker.unpack("<Q")
    walker.skip(num_points2d * (8 + 8 + 8))
    return ModelImage(
        image_id=image_id, name=name, camera_id=camera_id, quat_wxyz=(w, x, y, z), translation=(tx, ty, tz)
    )


def _point(walker: _Walker) -> tuple[int, tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    point_id, x, y, z, red, green, blue, _, track_length = walker.unpack("<Q3d3BdQ")
    return point_id, (x, y, z), (red, green, blue), walker.unpack(f"<{2 * track_length}I")[::2]


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
