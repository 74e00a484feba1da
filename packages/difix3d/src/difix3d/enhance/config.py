"""Configuration of enhancing a splat, a folder of renders or a film; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from difix_model.opening import FixerConfig
from output_files import check_range
from splat_recon.io.own_runs import scene_of_run
from splat_render.files.folders import Which


@dataclass(frozen=True, kw_only=True, slots=True)
class EnhanceConfig:
    """Fix what is seen along a path: of a splat, or of frames that are rendered already."""

    splat: Path | None = None
    """What is rendered and fixed: a run of difix3d-train or splat-recon, a file (.ply, .compressed.ply, .spz, .splat),
    or the output folder of the 3D Gaussian Splatting code. This or --input."""

    which: Which = "best"
    """Of a run of difix3d-train: the better one of its two splats, plain training's, or the loop's."""

    input: Path | None = None
    """What is rendered already, and fixed: a folder of frames in the order of their names, or a video."""

    out: Path
    """A video (.mp4, .mkv, .webm), a folder of frames, or a name with a number in it, such as fixed/%05d.png."""

    scene: Path | None = None
    """The captured photos, of which references are chosen: a COLMAP folder (images/ and sparse/0/), or a folder of
    photos if they are chosen by similarity. None: the scene that the run in --splat was made from, if it is one; else
    no references."""

    cameras: Path | None = None
    """Cameras of the frames, in the world of the splat and the scene: a COLMAP folder, transforms.json, a
    camera_path.json or cameras.json. For rendered frames one camera per frame, or cameras that name the frames. None:
    those of the scene (for a splat)."""

    path: Literal["given", "interpolated", "ellipse", "spiral", "orbit"] = "interpolated"
    """For a splat, where the film goes: given (the cameras as they are), or a path through or around them."""

    frames: int | None = None
    """For a splat, how many frames on a path that is not given. None: 12 from camera to camera, else 240."""

    max_size: int | None = None
    """For a splat, longer side of the frames in pixels. None: as the cameras say."""

    references: Literal["auto", "pose", "similarity", "none"] = "auto"
    """How references are chosen: by the nearest camera, by looks, or not at all. Auto: by pose where cameras of both
    are known, else by similarity; none where there is no scene or the weights know no references."""

    num_references: int = 1
    """References per frame, nearest first."""

    fixer: FixerConfig = field(default_factory=FixerConfig)
    """Which weights fix, and how."""

    steady: bool = True
    """Steady the change in time, along the motion of the frames."""

    fps: float | None = None
    """Frames per second of a new video. None: what the camera file says, else 24; videos keep theirs."""

    side_by_side: Path | None = None
    """A further video (.mp4): every frame before and after, next to each other."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    resume: bool = False
    """Go on after the frames that a stopped run has finished."""

    def __post_init__(self) -> None:
        if (self.splat is None) == (self.input is None):
            raise ValueError("name either what is to be rendered (--splat) or what is rendered already (--input)")
        check_range(self, "in (0, 1000]", "fps")
        check_range(self, "at least 1", "frames", "max_size", "num_references")
        if self.side_by_side is not None and self.side_by_side.suffix.lower() != ".mp4":
            raise ValueError(f"side_by_side must be the name of a video (.mp4), got {self.side_by_side}")

    @property
    def source(self) -> Path:
        """What is fixed, rendered or not."""
        return self.splat or self.input or Path()

    @property
    def captured(self) -> Path | None:
        """Where the captured photos are: named, or those of the run."""
        if self.scene is not None or self.splat is None:
            return self.scene
        return scene_of_run(self.splat)

    @property
    def of_splat(self) -> bool:
        """Whether the source is a splat."""
        return self.splat is not None
