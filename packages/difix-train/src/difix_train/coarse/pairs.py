"""Pairs of images averaged over cells, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from difix_model.pairs import PairRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarsePairs:
    """Pairs averaged over cells of one size, RGB in [0, 1]."""

    rendered: Float[Tensor, "n c=3 h w"]
    photo: Float[Tensor, "n c=3 h w"]
    reference: Float[Tensor, "n c=3 h w"]
    fine_mse: Float[Tensor, " n"]
    """Mean squared error of the render that lies within the cells."""

    def __len__(self) -> int:
        return len(self.rendered)


def coarse_pairs(records: Sequence[PairRecord], cells: Sequence[int]) -> dict[int, CoarsePairs]:
    """Read pairs of images of one size once, and average them over cells of several sizes.

    Args:
        records: The pairs, each with a reference.
        cells: Pixels along a cell.

    Returns:
        By the size of the cells.

    Raises:
        ValueError: There is no pair, one has no reference, or their sizes differ.
    """
    rows: dict[int, list[list[Tensor]]] = {size: [] for size in set(cells)}
    shape = None
    for record in records:
        if record.ref_image is None:
            raise ValueError(f"pair {record.id} has no reference: coarse training wants one for every pair")
        images = [_read(path) for path in (record.image, record.target_image, record.ref_image)]
        shape = shape or images[0].shape
        if any(image.shape != shape for image in images):
            raise ValueError(f"pair {record.id} is of another size: expected {shape}")
        error = float((images[0] - images[1]).square().mean())
        for size, kept in rows.items():
            averaged = [functional.avg_pool2d(image, size) for image in images]
            fine = max(error - float((averaged[0] - averaged[1]).square().mean()), 0.0)
            kept.append([*averaged, torch.tensor(fine)])
    if shape is None:
        raise ValueError("there is no pair to learn from")
    stacked = {size: [torch.stack(column) for column in zip(*kept, strict=True)] for size, kept in rows.items()}
    return {
        size: CoarsePairs(rendered=columns[0], photo=columns[1], reference=columns[2], fine_mse=columns[3])
        for size, columns in stacked.items()
    }


def _read(path: Path) -> Float[Tensor, "c=3 h w"]:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
