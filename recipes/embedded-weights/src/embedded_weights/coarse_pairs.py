"""Pairs as the UNet sees them: images averaged over the cells of the latent, and how much detail each cell has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from difix_model import DifixNetwork, PairRecord, read_pairs
from difix_model.identity import DETAIL
from train_runs.files import written_file

RGB, DETAIL_PLANE = slice(0, 3), 3
"""Planes of a coarse image: its color in [0, 1], averaged over cells, and the latent's measure of detail."""

CACHED_IMAGES = 200
"""Coarse images that are cached while pairs are read: photos stand in many pairs of a scene."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarsePairs:
    """Coarse pairs of images of one size."""

    rendered: Float[Tensor, "n c=4 h w"]
    photo: Float[Tensor, "n c=4 h w"]
    reference: Float[Tensor, "n c=4 h w"]
    irreducible_mse: Float[Tensor, " n"]
    """Mean squared error of the render within cells, which no coarse correction can undo."""

    def __len__(self) -> int:
        return len(self.rendered)


def coarse_pairs(records: Sequence[PairRecord], network: DifixNetwork) -> list[CoarsePairs]:
    """Read pairs and make them coarse.

    Args:
        records: The pairs, each with a reference. What does not fill a cell, at the right and the bottom, is left out.
        network: Initialized at the identity; its encoder measures detail.

    Returns:
        One entry for every size of images, in the order in which they come.

    Raises:
        ValueError: There is no pair, one has no reference, or its images differ in size.
    """
    side = network.config.vae.downscale_factor

    @lru_cache(CACHED_IMAGES)
    def read(path: Path) -> tuple[Float[Tensor, "c=3 h w"], Float[Tensor, "c=4 h2 w2"]]:
        with Image.open(path) as image:
            rgb = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
        rgb = rgb[:, : rgb.shape[1] // side * side, : rgb.shape[2] // side * side]
        return rgb, coarse_images(rgb[None], network)[0]

    rows: dict[tuple[int, ...], list[list[Tensor]]] = {}
    for record in records:
        if record.ref_image is None:
            raise ValueError(f"pair {record.id} has no reference: coarse training needs one for every pair")
        images = [read(path) for path in (record.image, record.target_image, record.ref_image)]
        (render, coarse_render), (photo, coarse_photo), (reference, coarse_reference) = images
        if not render.shape == photo.shape == reference.shape:
            raise ValueError(f"the images of pair {record.id} differ in size: coarse training needs one size in a pair")
        between = (coarse_render - coarse_photo)[RGB].square().mean()
        fine = ((render - photo).square().mean() - between).clamp(min=0)
        rows.setdefault(render.shape, []).append([coarse_render, coarse_photo, coarse_reference, fine])
    if not rows:
        raise ValueError("there is no pair to train on")
    return [
        CoarsePairs(rendered=columns[0], photo=columns[1], reference=columns[2], irreducible_mse=columns[3])
        for columns in ([torch.stack(column) for column in zip(*of_size, strict=True)] for of_size in rows.values())
    ]


@torch.no_grad()
def coarse_images(rgb: Float[Tensor, "n c=3 h w"], network: DifixNetwork) -> Float[Tensor, "n c2=4 h2 w2"]:
    """Average images over the cells of the latent, and measure the detail of each cell.

    Args:
        rgb: In [0, 1]; sides are multiples of the cells'.
        network: Initialized at the identity.
    """
    averaged = functional.avg_pool2d(rgb, network.config.vae.downscale_factor)
    detail = network.encode_latents(2 * rgb - 1)[:, DETAIL : DETAIL + 1]
    return torch.cat([averaged, detail], dim=1)


def cached_coarse_pairs(cache: Path, folders: Sequence[Path], network: DifixNetwork) -> list[CoarsePairs]:
    """All pairs of folders of pairs, made coarse; reading them takes minutes, so they are cached as safetensors.

    Args:
        cache: Folder of the cache.
        folders: Each with a `pairs.json`; pairs of either split are taken.
        network: As for :func:`coarse_pairs`.
    """
    names = [field.name for field in fields(CoarsePairs)]
    found: list[CoarsePairs] = []
    for folder in folders:
        records = read_pairs(folder / "pairs.json")
        path = cache / f"coarse_{folder.name}_{len(records)}.safetensors"
        if not path.is_file():
            sets = coarse_pairs(records, network)
            tensors = {f"{i}/{name}": getattr(one, name) for i, one in enumerate(sets) for name in names}
            with written_file(path) as temporary:
                save_file(tensors, temporary)
        tensors = load_file(path)
        num_sets = len(tensors) // len(names)
        found += [CoarsePairs(**{name: tensors[f"{i}/{name}"] for name in names}) for i in range(num_sets)]
    return found
