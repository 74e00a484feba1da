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
    """Fraction of the number of scenes that are asked for."""

    size: int
    """Longer side of the photos in pixels."""

    max_steps: int
    """Steps of a splat."""

    test: bool = False
    """Whether they go into the test split."""

    panoramas: str | None = None
    """Folder among the panoramas, as textures and surroundings; None: everything is drawn."""

    options: tuple[str, ...] = ()
    """Further options of `difix3d-pairs`."""


FEW = ("--strategies", "few", "sparse", "--targets-per-render", "8")
"""What users feed: renders of splats of few photos, and medians of several."""

SMALL = PairsSet(folder="pairs_128", first_seed=2000, fraction=7 / 8, size=128, max_steps=300)
LARGE = PairsSet(folder="pairs_192", first_seed=4000, fraction=1 / 8, size=192, max_steps=500)
"""Most scenes are small, as an image has few cells then, and a step takes a fraction of the time; the others keep the
network from fitting that size only."""

PHOTOGRAPHIC = PairsSet(
    folder="photographic_128",
    first_seed=3000,
    fraction=1,
    size=128,
    max_steps=300,
    panoramas="train",
    options=FEW,
)
"""Scenes of photographic textures and surroundings."""

HELD_OUT = PairsSet(folder="held_out", first_seed=5100, fraction=1, size=192, max_steps=500, test=True)
PHOTOGRAPHIC_HELD_OUT = PairsSet(
    folder="photographic_held_out",
    first_seed=6000,
    fraction=0.5,
    size=192,
    max_steps=500,
    test=True,
    panoramas="held_out",
    options=FEW,
)
"""To validate on."""


def make_pairs(
    out: Path,
    pairs: PairsSet,
    num_scenes: int,
    *,
    num_processes: int,
    device: str = "cpu",
    panoramas: Path | None = None,
) -> None:
    """Pairs of generated scenes; a finished folder is left alone, an interrupted one is continued.

    Args:
        out: Folder of the pairs.
        pairs: Which.
        num_scenes: Scenes that are asked for, of which the set has its fraction.
        num_processes: Scenes that are made at a time.
        device: Where splats are trained; only on a CPU are they the same everywhere.
        panoramas: Folder with the set's folder of panoramas; for sets without them it does not matter.
    """
    if (out / "pairs.json").is_file():
        return
    own = max(1, round(pairs.fraction * num_scenes))
    command = [
        *(sys.executable, "-m", "difix3d_pairs_app", "--out", str(out), "--generated", str(own)),
        *("--first-seed", str(pairs.first_seed), "--num-views", str(NUM_VIEWS), "--max-size", str(pairs.size)),
        *("--max-steps", str(pairs.max_steps), "--test-fraction", "1" if pairs.test else "0"),
        *("--num-processes", str(num_processes), "--device", device.split(":")[0]),
        *pairs.options,
    ]
    if pairs.panoramas is not None:
        if panoramas is None:
            raise ValueError(f"{pairs.folder} needs panoramas")
        command += ["--panoramas", str(panoramas / pairs.panoramas)]
    subprocess.run(command, check=True)
