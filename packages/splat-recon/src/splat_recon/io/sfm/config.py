"""Settings of structure from motion. Imports no pycolmap, so that command lines can name them."""

from dataclasses import dataclass
from typing import Literal

from output_files import check_range

CameraMode = Literal["auto", "shared", "per-image"]
Matching = Literal["auto", "exhaustive", "sequential"]
Mapping = Literal["auto", "incremental", "global"]

CAMERA_MODELS = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    "OPENCV_FISHEYE",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "FOV",
    "THIN_PRISM_FISHEYE",
)
"""COLMAP's camera models that can be estimated from photos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SfmConfig:
    """How photos, or a video, become cameras and points."""

    camera_mode: CameraMode = "auto"
    """Which photos share intrinsics: all (one camera at one zoom, one size), none, or, auto, those of one size whose
    EXIF data name one camera and one focal length; photos without EXIF data are grouped by size."""

    camera_model: str = "SIMPLE_RADIAL"
    """COLMAP's camera model; distortion is taken out afterwards."""

    max_features: int = 4000
    """SIFT features per photo."""

    max_size: int = 1600
    """Photos are matched at no more than this many pixels on their longer side."""

    matching: Matching = "auto"
    """Which pairs are compared: all, neighbors in name order, or, auto, all up to `exhaustive_limit` photos
    (`ordered_limit`, where the names count up or the photos are a video's frames), then neighbors where there is an
    order and all where there is none."""

    exhaustive_limit: int = 150
    """Most photos without order of which `auto` compares all pairs without a warning."""

    ordered_limit: int = 80
    """Most photos in order of which `auto` compares all pairs."""

    overlap: int = 10
    """Sequential matching compares a photo with so many next ones, and with ever farther ones at doubling distances."""

    mapping: Mapping = "auto"
    """Photo by photo with adjustments in between, all at once (GLOMAP), or, auto, the first up to `incremental_limit`
    photos and the second beyond; where that registers less than half of the photos, auto tries the other as well."""

    incremental_limit: int = 250
    """Most photos that `auto` maps one by one."""

    fps: float | None = None
    """Frames per second to take from a video. Left out: by motion."""

    max_frames: int = 120
    """Most frames to take from a video."""

    motion_step: float = 0.05
    """Motion between two frames of a video, in parts of the longer side."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where features are found and matched; auto takes CUDA where pycolmap was built with it."""

    num_threads: int = -1
    """Threads; -1 takes all cores."""

    seed: int = 0
    """Seed of everything random in COLMAP."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "max_features", "max_size", "exhaustive_limit", "ordered_limit")
        check_range(self, "at least 1", "incremental_limit", "overlap")
        check_range(self, "at least 3", "max_frames")
        check_range(self, "in (0, 240]", "fps")
        check_range(self, "in (0, 1]", "motion_step")
        if self.camera_model not in CAMERA_MODELS:
            raise ValueError(f"camera_model must be one of {', '.join(CAMERA_MODELS)}, got {self.camera_model}")
