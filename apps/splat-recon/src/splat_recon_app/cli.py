"""What can be asked for: one documented dataclass per verb. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from commands import Device, Groups
from output_files import check_range
from splat_recon.config import MIN_GAUSSIANS
from splat_recon_app.data_flags import SceneFlags
from splat_recon_app.training_flags import TrainingFlags
from splat_render.files.folders import Which

CPU_MAX_STEPS, CUDA_MAX_STEPS = 3000, 30_000
"""Default number of steps."""

CPU_MAX_SIZE = 384
"""Default size of the photos on a CPU, in pixels."""

CPU_MAX_GAUSSIANS, CUDA_MAX_GAUSSIANS = 50_000, 1_000_000
"""Default limit of Gaussians."""

MAX_SEED = 2**32 - 1
"""Every source of random numbers takes seeds up to this one."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainingFlags, SceneFlags):
    """Train Gaussians on a scene folder (images/ and sparse/0/), score them on test photos, write a PLY file."""

    scene: Path
    """COLMAP scene folder."""

    out: Path
    """Run folder to write; nothing is written elsewhere, unless a cache of undistorted photos is asked for."""

    max_steps: int | None = None
    """Length of the run; the schedule is scaled to it. Left out: 3000 on a CPU, 30000 on CUDA."""

    max_size: int | None = None
    """Photos are shrunk to this many pixels on their longer side; 0 keeps them. Left out: 384 on a CPU, 0 on CUDA."""

    max_gaussians: int | None = None
    """Never more Gaussians than this. Left out: 50000 on a CPU, a million on CUDA."""

    sparse: int | None = None
    """Train on this many views only: the list in the scene's splits.json, else evenly spaced ones."""

    split: str = "auto"
    """Test photos: auto (the scene's splits.json, else every:8), every:N, names (_train_/_eval_), glob:PATTERN,
    regex:PATTERN, a list of them (.txt) or a JSON file."""

    seed: int = 42
    """Seed of everything random."""

    device: Device = "auto"
    """auto takes CUDA where gsplat can use it."""

    checkpoint_every: int = 1000
    """Steps between two checkpoints."""

    keep_checkpoints: int | None = None
    """Keep this many of the newest checkpoints; older ones are removed once a newer one is whole. Left out: all."""

    stop_at: int | None = None
    """Stop after this step as if the run were over, without changing its schedule; --resume goes on."""

    resume: bool = False
    """Go on with the run in --out from its newest whole checkpoint, or begin it; repeat the flags it was started
    with."""

    eval_every: int | None = None
    """Steps between two looks at up to 8 test photos, for report and TensorBoard; 0 never. Left out: ten a run."""

    tensorboard: bool = False
    """Also write curves and pictures for TensorBoard into the run folder (extra tensorboard)."""

    viewer: bool = False
    """Show the training live in the browser (extra viewer); it changes nothing about the result."""

    viewer_host: str = "127.0.0.1"
    """Address that the viewer listens on: this machine's own, unless told otherwise."""

    viewer_port: int = 8080
    """Port of the viewer; the next free one where it is taken."""

    def __post_init__(self) -> None:
        TrainingFlags.__post_init__(self)
        SceneFlags.__post_init__(self)
        check_range(self, "at least 1", "max_steps", "sparse", "checkpoint_every", "keep_checkpoints", prefix="--")
        check_range(self, "at least 1", "stop_at", "viewer_port", prefix="--")
        check_range(self, f"at least {MIN_GAUSSIANS}", "max_gaussians", prefix="--")
        check_range(self, "at least 0", "max_size", "seed", "eval_every", prefix="--")
        if self.seed > MAX_SEED:
            raise ValueError(f"--seed must be at most {MAX_SEED}, got {self.seed}")
        if self.max_size is not None and 0 < self.max_size < 32:
            raise ValueError(f"--max-size must be 0 or at least 32 pixels, got {self.max_size}")


@dataclass(frozen=True, kw_only=True)
class SplatFlags:
    """Which splat."""

    splat: Annotated[Path, tyro.conf.arg(aliases=["--run"])]
    """A splat: a run of this command or of difix3d-train, a file in COLMAP's frame (.ply, .compressed.ply, .spz,
    .splat), or the output folder of the 3D Gaussian Splatting code."""

    which: Which = "best"
    """Of a run of difix3d-train: the better one of its two splats, plain training's, or the loop's."""

    device: Device = "auto"
    """auto takes CUDA where gsplat can use it."""


@dataclass(frozen=True, kw_only=True)
class Eval(SplatFlags):
    """Score a run, or a splat file from elsewhere, on the photos of a scene; writes metrics and images."""

    side: Literal["test", "train", "all"] = "test"
    """Which photos: those held out, those trained on, or all."""

    scene: Path | None = None
    """Scene folder. Of a run: where it is not the one that the run was started with."""

    out: Path | None = None
    """Of a splat file: folder for its metrics and images."""

    split: str = "auto"
    """Of a splat file: which photos are held out, as --split of `train`."""

    max_size: int | None = None
    """Of a splat file: photos are shrunk to this many pixels on their longer side."""

    def __post_init__(self) -> None:
        check_range(self, "at least 32", "max_size", prefix="--")


@dataclass(frozen=True, kw_only=True)
class Render(SplatFlags):
    """Render along a path: a video where --out ends in .mp4, else a folder with a file for each frame."""

    out: Path
    """Video to write (.mp4), or folder of frames."""

    path: Literal["interpolated", "ellipse", "spiral", "orbit", "given"] = "interpolated"
    """Through the cameras, around the scene, on a spiral before it, on a circle, or exactly the ones of --cameras."""

    cameras: Path | None = None
    """Cameras to use instead of the training ones: a COLMAP folder, transforms.json, cameras.json of a run, or
    nerfstudio's camera_path.json. A splat file needs some."""

    frames: int | None = None
    """Length of the film. Left out: --frames-per-view from camera to camera, 240 on the other paths."""

    frames_per_view: int = 12
    """Frames from one camera to the next, on the interpolated path."""

    shown: tuple[Literal["rgb", "depth", "alpha"], ...] = ("rgb",)
    """What to write: colors, depths (in folders also as float32 .npy, in COLMAP's unit), opacities."""

    max_size: int | None = None
    """Renders are at most this many pixels on their longer side. Left out: the cameras' own size."""

    background: tuple[float, float, float] | None = None
    """RGB in [0, 1] behind the splats. Left out: the training's, black for a file."""

    fps: float | None = None
    """Frames per second of the video. Left out: what --cameras says, or 24."""

    overwrite: bool = False
    """Replace the frames of another render; without it a render that was cut short goes on where it stopped."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "frames_per_view", "frames", "max_size", prefix="--")
        if self.cameras is None and self.path == "given":
            raise ValueError("--cameras is needed: the path 'given' is theirs")
        check_range(self, "in (0, 240]", "fps", prefix="--")
        if not self.shown or len(set(self.shown)) != len(self.shown):
            raise ValueError("--shown must name each of rgb, depth, alpha at most once, and at least one")
        if self.background is not None and not all(0 <= value <= 1 for value in self.background):
            raise ValueError(f"--background must be three values in [0, 1], got {self.background}")


@dataclass(frozen=True, kw_only=True)
class Export(SplatFlags):
    """Write a splat as a file of another format, in COLMAP's frame, or as a page that shows it in 3D in any browser."""

    out: Annotated[Path, tyro.conf.arg(aliases=["--to"])]
    """File to write; its ending is the format: .ply, .compressed.ply, .spz or .splat, or .html for the page."""

    cameras: Path | None = None
    """Of a page: the cameras that it goes through: a COLMAP folder, transforms.json or cameras.json of a run. Left out:
    the run's own, if the splat is one."""

    background_shell: bool = False
    """Put the color that the splats were trained before into the file as a far shell of Gaussians, for viewers that do
    not read what the file says of it."""


@dataclass(frozen=True, kw_only=True)
class View(SplatFlags):
    """Look at a splat in the browser (extra viewer); Ctrl-C ends it.

    A run that is still training is followed: new checkpoints are shown as they come.
    """

    cameras: Path | None = None
    """Cameras to show: a COLMAP folder, transforms.json or cameras.json of a run. Left out: the run's own, if it is
    one."""

    host: str = "127.0.0.1"
    """Address to listen on: this machine's own, unless told otherwise."""

    port: int = 8080
    """Port to listen on; the next free one where it is taken."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "port", prefix="--")


GROUPS: dict[str, Groups] = {
    "sfm": {
        "what matters": ("images", "out", "camera_mode", "camera_model", "max_size", "fps", "max_frames", "device"),
        "how pairs are matched and mapped": (
            "matching",
            "exhaustive_limit",
            "ordered_limit",
            "overlap",
            "mapping",
            "incremental_limit",
            "max_features",
            "motion_step",
            "num_threads",
            "seed",
        ),
    },
    "train": {
        "what matters": ("scene", "out", "max_steps", "max_size", "sparse", "split", "preset", "resume"),
        "photos": ("images", "sparse_model", "photo_memory", "photo_cache", "keep_undistorted"),
        "how Gaussians are trained": (
            "max_gaussians",
            "sh_degree",
            "antialiased",
            "stereo",
            "background",
            "random_background",
            "opacity_reg",
            "scale_reg",
            "dropout",
            "refine_poses",
            "appearance",
            "depth_weight",
            "batch_size",
            "seed",
        ),
        "watching": ("viewer", "viewer_host", "viewer_port", "tensorboard", "eval_every"),
        "checkpoints and hardware": (
            "checkpoint_every",
            "keep_checkpoints",
            "stop_at",
            "device",
            "packed",
            "sparse_grad",
            "visible_adam",
        ),
    },
}
"""Of verbs with many flags: what `--help` shows, and what `--help all` adds."""
