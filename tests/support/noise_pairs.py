"""Pairs of noise: enough for a trainer to run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from difix_model import PairRecord, write_pairs


def write_noise_pairs(
    folder: Path, *, side: int, prompt: str, num_train: int, num_test: int = 0, width: int | None = None
) -> Path:
    """Write pairs of images, each with a reference.

    Args:
        folder: Where.
        side: Height of the images, in pixels.
        prompt: Of all pairs.
        num_train: Pairs to train on.
        num_test: Pairs to test with, after the others.
        width: Of the images; None: they are square.

    Returns:
        The pairs JSON.
    """
    rng = np.random.default_rng(0)
    records = []
    for index in range(num_train + num_test):
        paths = {name: folder / f"{name}_{index}.png" for name in ("image", "target_image", "ref_image")}
        for path in paths.values():
            Image.fromarray(rng.integers(0, 256, (side, width or side, 3), dtype=np.uint8)).save(path)
        split = "train" if index < num_train else "test"
        records.append(PairRecord(id=f"pair_{index}", split=split, prompt=prompt, **paths))
    write_pairs(folder / "pairs.json", records)
    return folder / "pairs.json"
