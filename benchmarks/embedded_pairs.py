"""The pairs that `embedded_weights.py` trains on: which generated scenes, made once, read, and made coarse."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from difix_model.network import DifixNetwork
    from difix_model.pairs import PairRecord
    from difix_train.coarse.pairs import CoarsePairs

NUM_VIEWS = 20
"""Photos of a generated scene."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsSet:
    """Generated scenes whose pairs are made alike."""

    folder: str
    """Where, below `--out`."""

    first_seed: int
    """Seed of the first scene."""

    share: float
    """Share of `--num-scenes`."""

    size: int
    """Longer side of the photos in pixels."""

    max_steps: int
    """Steps of a splat."""


SMALL = PairsSet(folder="pairs_128", first_seed=2000, share=7 / 8, size=128, max_steps=300)
LARGE = PairsSet(folder="pairs_192", first_seed=4000, share=1 / 8, size=192, max_steps=500)
"""Most scenes are small, as an image has few cells then, and a step takes a fraction of the time; the others keep
what is learnt from holding for that size only."""

HELD_OUT = PairsSet(folder="held_out", first_seed=5100, share=1, size=192, max_steps=500)
"""For the figures on the way."""


def make_pairs(out: Path, wanted: PairsSet, num_scenes: int, *, test: bool, processes: int) -> None:
    """Pairs of generated scenes; a finished folder is left alone, a begun one is gone on with."""
    scenes = max(1, round(wanted.share * num_scenes))
    command = [
        *(sys.executable, "-m", "difix3d_pairs_app", "--out", str(out), "--generated", str(scenes)),
        *("--first-seed", str(wanted.first_seed), "--num-views", str(NUM_VIEWS), "--max-size", str(wanted.size)),
        *("--max-steps", str(wanted.max_steps), "--test-share", "1" if test else "0"),
        *("--num-processes", str(processes)),
    ]
    if not (out / "pairs.json").is_file():
        subprocess.run(command, check=True)


def read_folders(folders: Sequence[Path]) -> list[PairRecord]:
    """All pairs of folders of pairs, of either split."""
    from difix_model.pairs import read_pairs

    return [record for folder in folders for record in read_pairs(folder / "pairs.json")]


def coarse_folders(out: Path, folders: Sequence[Path], encoder: DifixNetwork) -> list[CoarsePairs]:
    """All pairs of folders, made coarse; kept below `out`, as reading them takes minutes."""
    from difix_train.coarse.pairs import CoarsePairs, coarse_pairs

    found: list[CoarsePairs] = []
    for folder in folders:
        records = read_folders([folder])
        kept = out / f"coarse_{folder.name}_{len(records)}.pt"
        if not kept.is_file():
            names = [field.name for field in dataclasses.fields(CoarsePairs)]
            sets = [{name: getattr(some, name) for name in names} for some in coarse_pairs(records, encoder)]
            torch.save(sets, kept)
        found += [CoarsePairs(**some) for some in torch.load(kept, weights_only=True)]
    return found


def of_scenes(records: Sequence[PairRecord], count: int | None) -> list[PairRecord]:
    """The pairs of the first so many scenes."""
    names = sorted({record.id.split("/")[0] for record in records})[:count]
    return [record for record in records if record.id.split("/")[0] in names]
