"""COLMAP's text files, as programs and scripts write them.

A photo has two lines in images.txt, the second with its keypoints. Scripts leave the second one out, or editors remove
it where it is empty: what a line is, is told by what stands in it. A photo's name is the rest of its line, with spaces.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from colmap_models.errors import InputError, read_bytes
from colmap_models.records import ModelCamera, ModelImage, ModelPoints

MAX_SHOWN = 60
"""Characters of a wrong line that a message shows."""


def read_cameras(path: Path) -> dict[int, ModelCamera]:
    """The cameras of a ``cameras.txt`` by number."""
    found: dict[int, ModelCamera] = {}
    for number, line in _content_lines(path):
        words = line.split()
        try:
            camera_id, width, height = (_whole(words[index]) for index in (0, 2, 3))
            params = tuple(float(word) for word in words[4:])
            camera = ModelCamera(model=words[1].upper(), width=width, height=height, params=params)
        except (ValueError, IndexError, OverflowError):
            raise _wrong(path, number, line, "not a camera (CAMERA_ID MODEL WIDTH HEIGHT PARAMS)") from None
        if found.setdefault(camera_id, camera) != camera:
            raise InputError(f"{path} has two cameras {camera_id}: give each its own number")
    return found


def read_images(path: Path) -> list[ModelImage]:
    """The photos of an ``images.txt``, with or without the lines of their keypoints.

    Raises:
        InputError: A line is neither a photo nor keypoints.
    """
    images: list[ModelImage] = []
    after_image = False
    for number, line in _lines(path):
        if after_image and _is_keypoints(line):
            after_image = False
        elif (image := _image(line)) is not None:
            images.append(image)
            after_image = True
        elif line.strip():
            what = "neither a photo (IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME) nor the keypoints of one"
            raise _wrong(path, number, line, what)
    return images


def read_points(path: Path) -> ModelPoints:
    """The points of a ``points3D.txt``, sorted by number."""
    found = []
    for number, line in _content_lines(path):
        words = line.split()
        try:
            xyz = (float(words[1]), float(words[2]), float(words[3]))
            rgb = tuple(min(255, max(0, _whole(word))) for word in words[4:7])
            found.append((_whole(words[0]), xyz, rgb, [_whole(word) for word in words[8::2]]))
        except (ValueError, IndexError, OverflowError):
            rgb = ()
        if len(rgb) < 3:
            raise _wrong(path, number, line, "not a point (POINT3D_ID X Y Z R G B ERROR TRACK)")
    return ModelPoints.of(found)


def _image(line: str) -> ModelImage | None:
    words = line.split(maxsplit=9)
    if len(words) < 10:
        return None
    try:
        image_id, camera_id = _whole(words[0]), _whole(words[8])
        w, x, y, z, tx, ty, tz = (float(word) for word in words[1:8])
    except (ValueError, OverflowError):
        return None
    return ModelImage(
        image_id=image_id, name=words[9].strip(), camera_id=camera_id, quat_wxyz=(w, x, y, z), translation=(tx, ty, tz)
    )


def _is_keypoints(line: str) -> bool:
    """Whether a line holds X Y POINT3D_ID, any number of times."""
    words = line.split()
    if len(words) % 3:
        return False
    try:
        _ = [float(word) for word in words], [int(word) for word in words[2::3]]
    except ValueError:
        return False
    return True


def _whole(word: str) -> int:
    """A whole number, which some programs write as 3.0."""
    try:
        return int(word)
    except ValueError:
        value = float(word)
        if not math.isfinite(value) or value != int(value):
            raise ValueError(f"{word} is no whole number") from None
        return int(value)


def _content_lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in _lines(path) if line.strip())


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are no comments with their numbers, of UTF-8 or, where a byte order mark says so, UTF-16.

    Bytes that are no UTF-8 become surrogates, for which photos are looked for in other encodings.
    """
    content = read_bytes(path)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16", "replace")
    else:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    # Not splitlines, which also ends lines at characters that a name may have.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if not line.startswith("#")]


def _wrong(path: Path, number: int, line: str, what: str) -> InputError:
    shown = line.strip().encode("utf-8", "replace").decode()
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
    return InputError(f"{path}, line {number} is {what}: {shown}")
