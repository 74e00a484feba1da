"""Which finished splat a run begins with; no torch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class StartConfig:
    """A finished splat to begin with."""

    path: str
    """The file or folder."""

    kind: Literal["checkpoint", "ply"]
    """A checkpoint (a run's folder, or gsplat's ckpt_STEP_rankR.pt, the files of all ranks beside it), or a splat file
    in COLMAP's frame."""

    frame: Literal["normalized", "colmap"] = "normalized"
    """Frame of a checkpoint of gsplat: its normalized one, or COLMAP's, where it was told not to normalize."""
