"""What `difix3d-train` understands."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from commands import Groups
from difix3d.run.settings import RunSettings

DISTRIBUTION = "difix3d-train-app"

GROUPS: Groups = {
    "what matters": ("scene", "out", "max_steps", "max_size", "sparse", "fixer", "gate", "resume"),
    "photos": ("split", "scenes", "num_processes", "ray", "image_memory"),
}
"""What `--help` shows; `--help all` adds the rest."""


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a Gaussian splat that improves with fixed novel views, and compare it with plain training.

    Without arguments a generated scene with few photos is reconstructed, in a few minutes on two cores. The last line
    is the path of the report.
    """

    run: tyro.conf.OmitArgPrefixes[RunSettings] = field(default_factory=RunSettings)

    out: Path | None = None
    """New folder for everything that is written. None: runs/demo or runs/ and the scene's name, numbered if taken."""

    scenes: Path | None = None
    """A folder of scenes, instead of --scene: each is run with the same settings, into a folder of its own under --out
    (None: runs/ and the folder's name). Finished scenes are skipped, and failed ones do not stop the rest."""

    num_processes: int = 1
    """With --scenes: how many scenes at a time on this machine."""

    ray: str | None = None
    """With --scenes: run on Ray, "local" or the address of a cluster whose nodes see all folders (extra ray)."""

    stop_at: int | None = None
    """Stop after this step, save a checkpoint and compare nothing; go on later with --resume."""

    resume: bool = False
    """Go on with the run in --out (None: the newest default folder), with the settings it was started with, or begin
    it: one command line for a job that is killed and started again."""

    def __post_init__(self) -> None:
        if self.stop_at is not None and self.stop_at < 1:
            raise ValueError(f"stop_at must be at least 1, got {self.stop_at}")
        if self.num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, got {self.num_processes}")
        if self.scenes is None and (self.num_processes > 1 or self.ray is not None):
            raise ValueError("num_processes and ray are for many scenes: name their folder with --scenes")

    @property
    def default_out(self) -> Path:
        """Where results go if nobody says."""
        return Path("runs") / ("demo" if self.run.scene is None else Path(self.run.scene).resolve().name)
