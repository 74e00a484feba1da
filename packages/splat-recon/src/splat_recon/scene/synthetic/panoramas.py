"""Photographic surroundings and textures of generated scenes, from panoramas that the user has."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from scipy.ndimage import map_coordinates

from media_files.photos import read_photo
from splat_recon.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

FIELD_OF_VIEW = (35.0, 85.0)
"""Degrees of a panorama that a texture shows."""

HIGHEST = 50.0
"""A texture is cut out within so many degrees of the horizon: near the poles there is mostly sky and tripod."""

TRIES = 3
"""Of so many cuts the one with the most contrast becomes the texture."""

MEAN_ALBEDO = (0.03, 0.5)
"""The mean of a texture, linear, is drawn between these."""

Panorama = Float32[np.ndarray, "h w 3"]
"""Equirectangular, linear RGB in [0, 1]; the first row looks up, columns go once around the z axis."""


def read_panoramas(folder: Path) -> tuple[Panorama, ...]:
    """Read all equirectangular images of a folder, in the order of their names.

    Raises:
        InputError: There is none, one cannot be read, or one is not twice as wide as high.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no panorama: give a folder of equirectangular images ({', '.join(SUFFIXES)})")
    return tuple(_read(path) for path in paths)


@lru_cache(maxsize=64)
def _read(path: Path) -> Panorama:
    rgb_u8, _ = read_photo(path)
    height, width, _ = rgb_u8.shape
    if width != 2 * height:
        raise InputError(f"{path} is {width}x{height}: a panorama is twice as wide as high")
    linear = (rgb_u8.astype(np.float32) / 255) ** np.float32(2.2)
    linear.setflags(write=False)
    return linear


def drawn_surroundings(rng: np.random.Generator, panoramas: tuple[Panorama, ...]) -> Panorama:
    """One of the panoramas, turned around the z axis."""
    panorama = panoramas[int(rng.integers(len(panoramas)))]
    return np.roll(panorama, int(rng.integers(panorama.shape[1])), axis=1)


def photographic_texture(
    rng: np.random.Generator, panoramas: tuple[Panorama, ...], size: int
) -> Float[np.ndarray, "t t 3"]:
    """A square part of a panorama as a pinhole camera sees it, as bright as an albedo; linear RGB in [0, 1]."""
    cuts = [_cut(rng, panoramas[int(rng.integers(len(panoramas)))], size) for _ in range(TRIES)]
    texture = max(cuts, key=lambda cut: float(np.sqrt(cut).std()))
    return np.clip(texture * (rng.uniform(*MEAN_ALBEDO) / max(float(texture.mean()), 1e-3)), 0, 1)


def _cut(rng: np.random.Generator, panorama: Panorama, size: int) -> Float[np.ndarray, "t t 3"]:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-HIGHEST, HIGHEST))
    reach = np.tan(np.radians(rng.uniform(*FIELD_OF_VIEW)) / 2)
    axis = ((np.arange(size) + 0.5) / size * 2 - 1) * reach
    x, y = np.meshgrid(axis, axis)
    forward = np.cos(elevation) + y * np.sin(elevation)
    up = np.sin(elevation) - y * np.cos(elevation)
    height, width, _ = panorama.shape
    rows = (0.5 - np.arctan2(up, np.hypot(forward, x)) / np.pi) * height - 0.5
    columns = ((azimuth + np.arctan2(x, forward)) / (2 * np.pi) % 1) * width - 0.5
    place = [rows, columns]
    return np.stack([map_coordinates(panorama[..., c], place, order=1, mode="grid-wrap") for c in range(3)], axis=-1)
