"""What `difix3d-eval` understands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from commands import Groups
from difix3d import RoundsConfig, RunSettings, ValidationConfig, ViewFixerConfig


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score renders of local scene folders by a stated protocol."""

    renders: Path
    """Folder with a folder of renders for each scene, named like the photos."""

    scenes: Path
    """Folder of the scenes."""

    out: Path
    """Where scores.json, scores.md and scores.html go."""

    protocol: str = "nerfbusters"
    """nerfbusters, dl3dv-difix, or a JSON file of the same form."""

    method: str = "renders"
    """What to call the renders in tables."""

    masked: bool = True
    """Use the protocol's visibility masks, which must be there. Without them it is another protocol."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Put scores of several methods into one table; refuses what was made by different protocols."""

    scores: tuple[Path, ...]
    """Files of `difix3d-eval score`."""

    out: Path
    """Where comparison.json, comparison.md and comparison.html go."""


@dataclass(frozen=True, kw_only=True)
class RunFlags(RunSettings):
    """The settings of a run as flags: those of the fixer and of rounds go without a prefix."""

    fixer: Annotated[ViewFixerConfig, tyro.conf.arg(name="")] = field(default_factory=ViewFixerConfig)
    rounds: Annotated[RoundsConfig, tyro.conf.arg(name="")] = field(default_factory=RoundsConfig)


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Run the rows of the method on one scene: plain, fix only, one shot, progressive, and with a final fix."""

    out: Path
    """Folder of both runs and of ablation.json, ablation.md and ablation.html; the same command goes on."""

    run: Annotated[RunFlags, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RunFlags(validation=ValidationConfig(fraction=0))
    )
    """Here no photo validates unless asked for: every round is kept, so that rows show what rounds do."""

    seeds: tuple[int, ...] = ()
    """Repeat all with each of these seeds, and give mean and spread of every row. None: once, with --seed."""

    frames: int = 36
    """Frames along the captured views on which the consistency of each row is measured; 0 leaves it out."""


GROUPS: dict[str, Groups] = {
    "ablation": {
        "what matters": ("scene", "out", "quality", "max_steps", "model", "gate", "seeds", "frames"),
        "photos": ("max_size", "sparse", "split", "image_memory"),
    }
}
"""What `--help` of a verb shows, where that is not everything; `--help all` adds the rest."""

VERBS = {"score": Score, "compare": Compare, "ablation": Ablation}
"""What each verb takes."""
