"""Which photo looks like a render, when nothing is known of cameras: small copies slid over each other.

Both are brought to thumbnails. The middle of the render's is compared with every part of the photo's, by normalized
correlation of colors and edges: brightness and contrast do not count, a turned camera does not hurt, and what is
wrong with a render at the scale of pixels is not seen. Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from difix_model.errors import InputError, first_problems
from media_files.photos import open_image

THUMBNAIL_SIDE = 32
"""Pixels along the longer side."""

MARGIN = 0.25
"""Share of a thumbnail's side, at either end, that is left out of the render's so that it can be slid, in [0, 0.5)."""

IMAGES_AT_ONCE = 64
"""Images whose thumbnails are compared at a time."""

_MIN_SIDE = 4
_MIN_NORM = 1e-6


def similarities(images: Iterable[Path | Image.Image], candidates: Sequence[Path]) -> Float32[np.ndarray, "n m"]:
    """Compare every image with every candidate. Only thumbnails are held, and of the images a few at a time.

    Args:
        images: Renders, one per row of the answer; files, or pictures as they come, such as a video's frames.

    Returns:
        The best correlation over all shifts, in [-1, 1]; 0 for images without any structure.
    """
    candidate_planes = _all_planes(candidates)
    waiting = iter(images)
    blocks = [np.empty((0, len(candidates)), dtype=np.float32)]
    while some := list(itertools.islice(waiting, IMAGES_AT_ONCE)):
        blocks.append(_compared(_all_planes(some), candidate_planes))
    return np.concatenate(blocks)


def _compared(image_planes: Sequence[np.ndarray], candidate_planes: Sequence[np.ndarray]) -> np.ndarray:
    best = np.full((len(image_planes), len(candidate_planes)), -1.0, dtype=np.float32)
    for rows in _by_shape(image_planes):
        for columns in _by_shape(candidate_planes):
            part = _slid(np.stack([image_planes[i] for i in rows]), np.stack([candidate_planes[i] for i in columns]))
            best[np.ix_(rows, columns)] = part
    return best


def _slid(
    images: Float32[np.ndarray, "n h w c"], candidates: Float32[np.ndarray, "m h2 w2 c"]
) -> Float32[np.ndarray, "n m"]:
    sides = [
        max(min(image - 2 * int(MARGIN * image), candidate), 1)
        for image, candidate in zip(images.shape[1:3], candidates.shape[1:3], strict=True)
    ]
    top, left = (images.shape[1] - sides[0]) // 2, (images.shape[2] - sides[1]) // 2
    middle = _normalized(images[:, top : top + sides[0], left : left + sides[1]])
    best = np.full((len(images), len(candidates)), -1.0, dtype=np.float32)
    for y in range(candidates.shape[1] - sides[0] + 1):
        for x in range(candidates.shape[2] - sides[1] + 1):
            window = _normalized(candidates[:, y : y + sides[0], x : x + sides[1]])
            np.maximum(best, middle @ window.T, out=best)
    return best


def _normalized(planes: Float32[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n d"]:
    """Every plane without its mean; together of unit length."""
    centered = planes - planes.mean(axis=(1, 2), keepdims=True)
    flat = centered.reshape(len(centered), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), _MIN_NORM)


def _all_planes(images: Sequence[Path | Image.Image]) -> list[Float32[np.ndarray, "h w c"]]:
    planes, problems = [], []
    for image in images:
        try:
            planes.append(_planes(open_image(image) if isinstance(image, Path) else image))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(first_problems(problems))
    return planes


def _planes(image: Image.Image) -> Float32[np.ndarray, "h w c"]:
    """A thumbnail's colors and, weighing as much, its edges across and down."""
    image = image.convert("RGB")
    scale = THUMBNAIL_SIDE / max(image.size)
    size = (max(round(image.width * scale), _MIN_SIDE), max(round(image.height * scale), _MIN_SIDE))
    rgb = np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255.0
    brightness = rgb.mean(axis=-1)
    edges = np.zeros((*brightness.shape, 2), dtype=np.float32)
    edges[:, 1:-1, 0] = brightness[:, 2:] - brightness[:, :-2]
    edges[1:-1, :, 1] = brightness[2:] - brightness[:-2]
    return np.concatenate([_weighing_one(rgb), _weighing_one(edges)], axis=-1)


def _weighing_one(planes: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
    centered = planes - planes.mean(axis=(0, 1))
    return centered / max(float(np.sqrt(np.square(centered).sum(axis=-1).mean())), _MIN_NORM)


def _by_shape(planes: Sequence[np.ndarray]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, found in enumerate(planes):
        groups.setdefault(found.shape, []).append(number)
    return list(groups.values())
