"""The flags that say what is read and how: scenes, photos, videos. Imports no torch and no pycolmap."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from splat_recon import SfmConfig

MIN_PHOTO_MEMORY = 0.0
"""Least gigabytes for decoded photos: with none, every photo is decoded at each step."""


@dataclass(frozen=True, kw_only=True)
class SceneFlags:
    """How a scene folder is read."""

    images: str = "auto"
    """Folder of the photos in the scene folder. auto: images, or of images_2, images_4, ... the smallest that fills
    --max-size."""

    sparse_model: str | None = None
    """Sparse model to read, by its number or folder. Left out: the one with the most photos, of several."""

    photo_memory: float = 4.0
    """Gigabytes of decoded photos to hold; others are decoded again when their turn comes. Changes no result."""

    photo_cache: Path | None = None
    """Folder to keep undistorted photos in for the next time, of scenes with lens distortion. Left out: none."""

    keep_undistorted: bool = False
    """Keep them in splat-recon/photos in the user's cache folder, where --photo-cache names no other."""

    def __post_init__(self) -> None:
        if not self.photo_memory >= MIN_PHOTO_MEMORY:
            raise ValueError(f"--photo-memory must be at least 0 gigabytes, got {self.photo_memory}")


AS_FOUND = SceneFlags()
"""A scene as its folder has it."""


@dataclass(frozen=True, kw_only=True)
class Sfm:
    """Find the cameras of photos or of a video's frames (structure from motion) and write a scene folder."""

    images: Path
    """Folder of photos, subfolders included, or a video."""

    out: Path
    """Scene folder to write: images/, sparse/0/ and sfm_report.json. After an interruption the same command goes on."""

    config: Annotated[SfmConfig, tyro.conf.arg(name="")] = field(default_factory=SfmConfig)
    """How cameras are found."""


@dataclass(frozen=True, kw_only=True)
class Convert(SceneFlags):
    """Write a scene, undistorted, as a folder for COLMAP's readers or for nerfstudio."""

    scene: Path
    """COLMAP scene folder, or folder with nerfstudio's transforms.json."""

    out: Path
    """Folder to write."""

    to: Literal["colmap", "transforms"]
    """colmap: images/ and sparse/0/. transforms: images/, transforms.json and sparse_pc.ply."""

    max_size: int = 0
    """Photos are shrunk to this many pixels on their longer side; 0 keeps them."""

    def __post_init__(self) -> None:
        SceneFlags.__post_init__(self)
        if self.max_size < 0:
            raise ValueError(f"--max-size must be at least 0, got {self.max_size}")
