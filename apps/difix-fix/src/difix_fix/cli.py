"""What `difix-fix` understands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from commands import DeviceFlags
from difix_model import FixerConfig


@dataclass(frozen=True, kw_only=True)
class FixSettings(DeviceFlags):
    """Fix a render, a folder of renders, or a video."""

    input: Path
    """An image, a folder of images, or a video."""

    out: Path
    """Where results go: a folder, or for a single image or video a file. Inputs are never overwritten."""

    reference: Path | None = None
    """A photo of the same place from nearby; a folder of photos, of which the best is chosen for every image or frame;
    or a file of chosen references, as is written beside the results."""

    reference_by: Literal["auto", "name", "order", "pose", "similarity"] = "auto"
    """How references are chosen from a folder: auto chooses by pose if --cameras are given, otherwise by name, by pose,
    by order, or by similarity, whichever is first possible for all images."""

    num_references: int = 1
    """References per image, nearest first; more than one are chosen by pose or by similarity."""

    cameras: Path | None = None
    """Cameras of the images, to go by pose: a COLMAP folder, a transforms.json or a cameras.json. By default those
    beside the images or the photos. For a video one per frame, in the order of their names."""

    reference_cameras: Path | None = None
    """Cameras of the photos, in the same world. By default those beside the photos, otherwise those of the images."""

    fixer: FixerConfig = field(default_factory=FixerConfig)
    """Which weights fix, and how."""

    mask: Path | None = None
    """Where images may be changed: a gray image, or a folder with one of each image's name; white for yes."""

    alpha: Path | None = None
    """Opacity of the renders for the gate, in the same form: what is transparent may be changed. By default the images'
    own alpha channel, if they have one."""

    write_mask: Path | None = None
    """A folder for what was let through: a gray image for each image, white where the fix stands."""

    skip_broken: bool = False
    """Leave out images that cannot be read, and name them at the end (exit code 2), instead of refusing all."""

    steady: bool = False
    """For videos and folders of consecutive frames: steady the change in time, along the motion of the input."""

    fps: float | None = None
    """Frames per second of a video that is made from a folder of images; 30 by default. Videos keep theirs."""

    resume: bool = False
    """Go on with a folder, video or sequence after what a stopped run has finished."""

    def __post_init__(self) -> None:
        if self.fps is not None and not 0.0 < self.fps <= 1000.0:
            raise ValueError(f"fps must be in (0, 1000], got {self.fps}")
        if self.num_references < 1:
            raise ValueError(f"num_references must be at least 1, got {self.num_references}")
        if self.num_references > 1 and self.reference_by in ("name", "order"):
            raise ValueError(f"by {self.reference_by} there is one reference per image, got {self.num_references}")
