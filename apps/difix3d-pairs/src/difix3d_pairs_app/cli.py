"""What `difix3d-pairs` understands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from difix3d.pairs.config import PairsConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsCommand:
    """Make pairs of degraded and clean images, of generated or captured scenes, to train a fixer with."""

    out: Path
    """Folder for images and pairs.json. Run again with the same settings, finished scenes are kept."""

    generated: int = 0
    """Number of generated scenes; needs no data."""

    first_seed: int = 1000
    """Seed of the first generated scene; the others follow. Seeds from 5000 on are for testing by convention."""

    scenes: tuple[Path, ...] = ()
    """Folders of captured scenes in COLMAP layout."""

    config: PairsConfig = field(default_factory=PairsConfig)
    """What to make of each scene."""

    def __post_init__(self) -> None:
        if self.generated < 0 or self.first_seed < 0:
            raise ValueError(f"generated and first_seed must be >= 0, got {self.generated} and {self.first_seed}")
        if not self.generated and not self.scenes:
            raise ValueError("nothing to make pairs of: give --generated N or --scenes FOLDER [FOLDER ...]")
