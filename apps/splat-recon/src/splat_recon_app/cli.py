"""What can be asked for: one documented dataclass per verb. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splat_recon.config import MIN_GAUSSIANS

Device = Literal["auto", "cpu", "cuda"]

CPU_MAX_STEPS, CUDA_MAX_STEPS = 3000, 30_000
"""Default number of steps."""

CPU_MAX_SIZE = 384
"""Default size of the photos on a CPU, in pixels."""

CPU_MAX_GAUSSIANS, CUDA_MAX_GAUSSIANS = 50_000, 1_000_000
"""Default limit of Gaussians."""

MAX_SEED = 2**32 - 1
"""Every source of random numbers takes seeds up to this one."""


def _check_at_least(args: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train Gaussians on a scene folder (images/ and sparse/0/), score them on held-out photos, write a PLY file."""

    scene: Path
    """COLMAP scene folder."""

    out: Path
    """Run folder to write; nothing is written elsewhere."""

    preset: Literal["default", "mcmc"] = "default"
    """Density control: gsplat's default (duplicate, split, prune) or Markov chain Monte Carlo."""

    max_steps: int | None = None
    """Length of the run; the schedule is scaled to it. Left out: 3000 on a CPU, 30000 on CUDA."""

    max_size: int | None = None
    """Photos are shrunk to this many pixels on their longer side; 0 keeps them. Left out: 384 on a CPU, 0 on CUDA."""

    max_gaussians: int | None = None
    """Never more Gaussians than this. Left out: 50000 on a CPU, a million on CUDA."""

    sparse: int | None = None
    """Train on this many views only: the list in the scene's splits.json, else evenly spaced ones."""

    split: str = "auto"
    """Held-out photos: auto (the scene's splits.json, else every:8), every:N, names (_train_/_eval_) or a JSON file."""

    random_background: bool = False
    """Train before random backgrounds, which keeps surfaces opaque; for photos without transparent parts."""

    seed: int = 42
    """Seed of everything random."""

    device: Device = "auto"
    """auto takes CUDA where gsplat can use it."""

    checkpoint_every: int = 1000
    """Steps between two checkpoints."""

    stop_at: int | None = None
    """Stop after this step as if the run were over, without changing its schedule; --resume goes on."""

    resume: bool = False
    """Go on with the run in --out from its newest whole checkpoint; repeat the flags it was started with."""

    eval_every: int | None = None
    """Steps between two looks at up to 8 held-out photos, for report and TensorBoard; 0 never. Left out: ten a run."""

    tensorboard: bool = False
    """Also write curves and pictures for TensorBoard into the run folder (extra tensorboard)."""

    viewer: bool = False
    """Show the training live in the browser (extra viewer); it changes nothing about the result."""

    viewer_host: str = "127.0.0.1"
    """Address that the viewer listens on: this machine's own, unless told otherwise."""

    viewer_port: int = 8080
    """Port of the viewer; the next free one where it is taken."""

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "max_steps", "sparse", "checkpoint_every", "stop_at")
        _check_at_least(self, MIN_GAUSSIANS, "max_gaussians")
        _check_at_least(self, 0, "max_size", "seed", "eval_every")
        _check_at_least(self, 1, "viewer_port")
        if self.seed > MAX_SEED:
            raise ValueError(f"--seed must be at most {MAX_SEED}, got {self.seed}")
        if self.max_size is not None and 0 < self.max_size < 32:
            raise ValueError(f"--max-size must be 0 or at least 32 pixels, got {self.max_size}")


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Score a run on the photos of its scene; writes metrics and images into the run folder."""

    run: Path
    """Run folder of `train`."""

    split: Literal["test", "train"] = "test"
    """Which photos."""

    scene: Path | None = None
    """Scene folder, where it is not the one that the run was started with."""

    device: Device = "auto"
    """auto takes CUDA where gsplat can use it."""


@dataclass(frozen=True, kw_only=True)
class Render:
    """Render a video along a smooth path through the training cameras."""

    run: Path
    """Run folder of `train`."""

    out: Path
    """Video file to write (.mp4)."""

    frames_per_view: int = 12
    """Frames from one camera to the next."""

    fps: float = 24.0
    """Frames per second."""

    device: Device = "auto"
    """auto takes CUDA where gsplat can use it."""

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "frames_per_view")
        if not 0 < self.fps <= 240:
            raise ValueError(f"--fps must be in (0, 240], got {self.fps}")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the newest Gaussians of a run as a PLY file in COLMAP's frame."""

    run: Path
    """Run folder of `train`."""

    out: Path
    """File to write (.ply)."""


@dataclass(frozen=True, kw_only=True)
class Sfm:
    """Find the cameras of photos (structure from motion) and write a scene folder."""

    images: Path
    """Folder of photos."""

    out: Path
    """Scene folder to write."""

    shared_camera: bool = True
    """All photos come from one camera at one zoom."""


Command = Train | Eval | Render | Export | Sfm
