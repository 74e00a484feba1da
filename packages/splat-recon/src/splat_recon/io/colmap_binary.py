"""A look at COLMAP's binary files before COLMAP's reader sees them.

The reader trusts the counts in a file: a file that was cut short, or is none of COLMAP's, can keep it busy for ever or
end the process. Here every record is walked over, and a file passes when its records end where the file ends.
"""

import struct
from collections.abc import Callable
from pathlib import Path

from splat_recon.errors import InputError
from splat_recon.io.pycolmap_import import pycolmap

_POSE_BYTES = 7 * 8
"""A quaternion and a translation."""


class _Walker:
    """A position in the bytes of a file, moved by what is read there."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self._content, self.position)
        self.position += struct.calcsize(layout)
        return values

    def skip(self, num_bytes: int) -> None:
        self.position += num_bytes
        if self.position > len(self._content):
            raise struct.error("the records go on after the end of the file")

    def skip_name(self) -> None:
        end = self._content.find(b"\0", self.position)
        if end < 0:
            raise struct.error("a name does not end")
        self.position = end + 1

    @property
    def num_left(self) -> int:
        return len(self._content) - self.position


def check_binary_model(model: Path) -> None:
    """Check the files of a binary model that are there.

    Raises:
        InputError: A file is cut short, has more than its records, or is not one of COLMAP's.
    """
    problems = []
    for name, walk_record in _RECORDS.items():
        path = model / name
        if not path.is_file():
            continue
        try:
            walker = _Walker(path.read_bytes())
            (count,) = walker.unpack("<Q")
            for _ in range(count):
                walk_record(walker)
        except (struct.error, ValueError) as error:
            problems.append(f"{path} is cut short or not one of COLMAP's files ({error}): copy or make it again")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error}")
        else:
            if walker.num_left:
                problems.append(f"{path} has {walker.num_left} bytes after its last record: copy or make it again")
    if problems:
        raise InputError.from_problems(f"model {model}", problems)


def _walk_camera(walker: _Walker) -> None:
    _, model_id, _, _ = walker.unpack("<IiQQ")
    model = pycolmap.CameraModelId(model_id)
    if model == pycolmap.CameraModelId.INVALID:
        raise ValueError("a camera has no model")
    num_params = len(pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1).params)
    walker.skip(8 * num_params)


def _walk_image(walker: _Walker) -> None:
    walker.skip(4 + _POSE_BYTES + 4)
    walker.skip_name()
    (num_points2d,) = walker.unpack("<Q")
    walker.skip(num_points2d * (8 + 8 + 8))


def _walk_point(walker: _Walker) -> None:
    walker.skip(8 + 3 * 8 + 3 + 8)
    (track_length,) = walker.unpack("<Q")
    walker.skip(track_length * (4 + 4))


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


_RECORDS: dict[str, Callable[[_Walker], None]] = {
    "cameras.bin": _walk_camera,
    "images.bin": _walk_image,
    "points3D.bin": _walk_point,
    "rigs.bin": _walk_rig,
    "frames.bin": _walk_frame,
}
