"""Configuration of the live page of a splat and its fixes; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from difix_model.opening import FixerConfig
from output_files import check_range
from splat_recon.io.own_runs import scene_of_run
from splat_render.files.folders import Which

FixMode = Literal["off", "on", "side-by-side"]
"""What the page shows: renders, fixes as soon as they are ready, or both."""

MODES: tuple[FixMode, ...] = get_args(FixMode)


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveConfig:
    """Look at a splat in the browser, as it is and fixed."""

    splat: Path
    """The splat, in the world of the scene's cameras: a run of difix3d-train or splat-recon, a file (.ply,
    .compressed.ply, .spz, .splat), or the output folder of the 3D Gaussian Splatting code."""

    which: Which = "best"
    """Of a run of difix3d-train: the better one of its two splats, plain training's, or the loop's."""

    scene: Path | None = None
    """The captured photos, of which the nearest by pose is the reference: a COLMAP folder (images/ and sparse/0/), or a
    folder with images/ and transforms.json. None: the
    scene that the run was made from, if the splat is one; else no references."""

    cameras: Path | None = None
    """Cameras to show on the page, which begins at the first: a COLMAP folder, transforms.json or cameras.json. None:
    those of the scene."""

    fix: FixMode = "side-by-side"
    """What the page shows to begin with: off (as rendered), on, or side-by-side. The page can change it."""

    num_references: int = 1
    """References per picture, nearest first; 0 for none."""

    fixer: FixerConfig = field(default_factory=FixerConfig)
    """Which weights fix, and how."""

    max_size: int | None = None
    """Longer side of a picture in pixels, in [128, 2048]; the page can change it. None: 1024 on a GPU, 512 on a CPU."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to render and to fix."""

    host: str = "127.0.0.1"
    """Address to listen on: this machine's own, unless told otherwise."""

    port: int = 8080
    """Port to listen on; the next free one where it is taken."""

    def __post_init__(self) -> None:
        check_range(self, "at least 0", "num_references")
        check_range(self, "in [128, 2048]", "max_size")
        check_range(self, "in [1, 65535]", "port")

    @property
    def captured(self) -> Path | None:
        """Where the captured photos are: named, or those of the run."""
        return self.scene or scene_of_run(self.splat)
