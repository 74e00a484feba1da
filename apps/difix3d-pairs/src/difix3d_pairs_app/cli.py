"""What `difix3d-pairs` understands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from commands import Groups
from difix3d import PairsConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsCommand:
    """Make pairs of degraded and clean images, of generated or captured scenes, to train a fixer with.

    `difix3d-pairs merge A B --out C` joins folders of pairs; see `difix3d-pairs merge --help`.

    Exit codes: 0 all scenes are done; 1 some failed, the others are done; 2 bad input; 130 stopped by Ctrl-C, 143 by
    SIGTERM.
    """

    out: Path
    """Folder for images, pairs.json and the data card. Run again with the same settings, finished scenes are kept."""

    generated: int = 0
    """Number of generated scenes; needs no data."""

    first_seed: int = 1000
    """Seed of the first generated scene; the others follow. Seeds from 5000 on are for testing by convention."""

    scenes: tuple[Path, ...] = ()
    """Folders of captured scenes in COLMAP layout."""

    num_processes: int = 1
    """Scenes that are made at a time. The files do not depend on it."""

    ray: str | None = None
    """Make scenes on Ray: `local` starts it here with --num-processes cores, otherwise the address of a cluster whose
    nodes see --out and --scenes under the same paths. Needs the extra `ray`."""

    config: PairsConfig = field(default_factory=PairsConfig)
    """What to make of each scene."""

    def __post_init__(self) -> None:
        if self.generated < 0 or self.first_seed < 0:
            raise ValueError(f"generated and first_seed must be >= 0, got {self.generated} and {self.first_seed}")
        if self.num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, got {self.num_processes}")
        if not self.generated and not self.scenes:
            raise ValueError("nothing to make pairs of: give --generated N or --scenes FOLDER [FOLDER ...]")


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeCommand:
    """Join folders of pairs into one pairs.json and one data card; images stay where they are.

    Refused where two pairs have one name, or a scene or photo would be in both splits (exit code 2).
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Two or more folders of pairs."""

    out: Path
    """Folder for pairs.json and the card."""


GROUPS: Groups = {
    "what matters": ("out", "generated", "scenes", "strategies", "max_size", "max_steps", "num_processes", "seed"),
    "scenes": ("first_seed", "num_views", "varied", "test_fraction", "test_scenes", "ray"),
}
"""What `--help` shows, and what `--help all` adds; the rest is about how pairs are degraded and left out."""
