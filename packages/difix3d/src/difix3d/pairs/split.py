"""Which scenes are for testing: decided by the scene's name alone, never frame by frame."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from difix3d.errors import InputError
from difix3d.pairs.config import PairsConfig

RULE = (
    "A scene is for testing if `test_scenes` names it; where that list is empty, if the number in [0, 1) that numpy's "
    "generator draws from the seed and the CRC-32 of the scene's name is below `test_fraction`. All pairs of a scene "
    "are in one split."
)
"""The rule in words, for the data card."""


def name_digest(text: str) -> int:
    """A number of a name, the same on every machine."""
    return zlib.crc32(text.encode())


def scene_split(name: str, config: PairsConfig) -> str:
    """Say "train" or "test" for a scene; see `RULE`."""
    if config.test_scenes:
        return "test" if name in config.test_scenes else "train"
    drawn = np.random.default_rng([config.seed, name_digest(name)]).random()
    return "test" if drawn < config.test_fraction else "train"


def check_test_scenes(names: Sequence[str], config: PairsConfig) -> None:
    """Check that the scenes named for testing are there."""
    unknown = sorted(set(config.test_scenes) - set(names))
    if unknown:
        raise InputError(
            f"test_scenes names {', '.join(unknown[:10])}, but the scenes are {', '.join(sorted(names)[:10])}"
            + (" ..." if len(names) > 10 else "")
        )
