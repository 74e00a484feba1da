"""Photos of small COLMAP models, written byte by byte and line by line."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from colmap_models import ModelImage


def write_images(path: Path, images: Sequence[ModelImage]) -> None:
    """An images.bin or images.txt, in which each photo has one keypoint more than the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".txt":
        lines = ["# Image list with two lines of data per image:"]
        for count, image in enumerate(images):
            words = (image.image_id, *image.quat_wxyz, *image.translation, image.camera_id, image.name)
            lines += [" ".join(map(str, words)), "1.5 2.5 -1 " * count]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
        return
    content = struct.pack("<Q", len(images))
    for count, image in enumerate(images):
        content += struct.pack("<I7dI", image.image_id, *image.quat_wxyz, *image.translation, image.camera_id)
        content += image.name.encode("utf-8", "surrogateescape") + b"\0" + struct.pack("<Q", count) + b"\1" * 24 * count
    path.write_bytes(content)


def change(path: Path, rule: Callable[[str], str]) -> None:
    path.write_text(rule(path.read_text(encoding="utf-8")), encoding="utf-8")


def photo_lines(text: str) -> list[str]:
    """The lines of photos, whose names end in .png, of an images.txt."""
    return [line for line in text.splitlines() if line.endswith(".png")]
