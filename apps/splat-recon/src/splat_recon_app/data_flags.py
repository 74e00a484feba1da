"""The flags that say what is read and how: scenes, photos, videos. Imports no torch and no pycolmap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splat_recon.io.sfm.config import Cameras, Mapping, Matching, SfmConfig

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

    camera_mode: Cameras = "auto"
    """Photos that share a camera: all, none, or (auto) those of one size with one camera and focal length in EXIF."""

    camera_model: str = "SIMPLE_RADIAL"
    """COLMAP's camera model of the lens; OPENCV or OPENCV_FISHEYE for wide ones."""

    matching: Matching = "auto"
    """Pairs to compare: all, or neighbors in order. auto: all up to 80 photos in order (150 without), then neighbors
    where names count up or a video is given."""

    mapping: Mapping = "auto"
    """One photo after the other, or all at once (GLOMAP). auto: one after the other up to 250 photos; the other one as
    well where fewer than half of the photos are registered."""

    max_features: int = 4000
    """Features per photo."""

    max_size: int = 1600
    """Photos are matched at this many pixels on their longer side at most; they are written at full size."""

    fps: float | None = None
    """Of a video: frames per second to choose from. Left out: by motion."""

    max_frames: int = 120
    """Of a video: most frames to take."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where features are found and matched; auto takes CUDA where pycolmap was built with it."""

    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        self.config()

    def config(self) -> SfmConfig:
        """The library's settings."""
        return SfmConfig(
            cameras=self.camera_mode,
            camera_model=self.camera_model,
            matching=self.matching,
            mapping=self.mapping,
            max_features=self.max_features,
            max_size=self.max_size,
            fps=self.fps,
            max_frames=self.max_frames,
            device=self.device,
            seed=self.seed,
        )


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
