"""What `difix3d-train` understands."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from difix3d.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a Gaussian splat that improves with fixed novel views, and compare it with plain training.

    Without arguments a generated scene with few photos is reconstructed, in a few minutes on two cores. The last line
    is the path of the report.
    """

    run: tyro.conf.OmitArgPrefixes[RunSettings] = field(default_factory=RunSettings)

    out: Path | None = None
    """New folder for everything that is written. None: runs/demo or runs/ and the scene's name, numbered if taken."""

    stop_at: int | None = None
    """Stop after this step, save a checkpoint and compare nothing; go on later with --resume."""

    resume: bool = False
    """Go on with the run in --out (None: the newest default folder), with the settings it was started with."""

    def __post_init__(self) -> None:
        if self.stop_at is not None and self.stop_at < 1:
            raise ValueError(f"stop_at must be at least 1, got {self.stop_at}")

    @property
    def default_out(self) -> Path:
        """Where results go if nobody says."""
        return Path("runs") / ("demo" if self.run.scene is None else Path(self.run.scene).resolve().name)
