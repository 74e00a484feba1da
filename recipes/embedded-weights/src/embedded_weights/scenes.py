"""The pairs to train on: which generated scenes, made once by `difix3d-pairs`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NUM_VIEWS = 20
"""Photos of a generated scene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsSet:
    """Generated scenes whose pairs are made alike."""

    folder: str
    """Where, below `--out`."""

    first_seed: int
    """Seed of the first scene."""

    fraction: float
    """Fraction of `--num-scenes`."""

    size: int
    """Longer side of the photos in pixels."""

    max_steps: int
    """Steps of a splat."""


SMALL = PairsSet(folder="pairs_128", first_seed=2000, fraction=7 / 8, size=128, max_steps=300)
LARGE = PairsSet(folder="pairs_192", first_seed=4000, fraction=1 / 8, size=192, max_steps=500)
"""Most scenes are small, as an image has few cells then, and a step takes a fraction of the time; the others keep the
network from fitting that size only."""

HELD_OUT = PairsSet(folder="held_out", first_seed=5100, fraction=1, size=192, max_steps=500)
"""To validate on."""


def make_pairs(
    out: Path, pairs: PairsSet, num_scenes: int, *, test: bool, num_processes: int, device: str = "cpu"
) -> None:
    """Pairs of generated scenes; a finished folder is left alone, an interrupted one is continued.

    Args:
        out: Folder of the pairs.
        pairs: Which.
        num_scenes: Scenes of all sets together.
        test: Put them into the test split.
        num_processes: Scenes that are made at a time.
        device: Where splats are trained; only on a CPU are they the same everywhere.
    """
    if (out / "pairs.json").is_file():
        return
    own = max(1, round(pairs.fraction * num_scenes))
    command = [
        *(sys.executable, "-m", "difix3d_pairs_app", "--out", str(out), "--generated", str(own)),
        *("--first-seed", str(pairs.first_seed), "--num-views", str(NUM_VIEWS), "--max-size", str(pairs.size)),
        *("--max-steps", str(pairs.max_steps), "--test-fraction", "1" if test else "0"),
        *("--num-processes", str(num_processes), "--device", device.split(":")[0]),
    ]
    subprocess.run(command, check=True)
