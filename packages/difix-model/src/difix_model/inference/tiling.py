"""Large images in overlapping tiles: where the tiles lie and how their results are blended."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MAX_UNTILED_PIXELS = 2048 * 1088
"""Images of more pixels are cut into tiles where no tile size is given; Full HD is still run whole."""

DEFAULT_TILE_SIZE = 1024
"""Longest side of a tile where none is given; the released weights were trained on 1024 x 576."""

MIN_TILE_SIZE = 128
"""Tiles do not get smaller: what a tile sees besides its seams would be too little."""

SEAM_MARGIN = 0.25
"""Share of an overlap, at each of its ends, where a tile next to its own border has no weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TilingConfig:
    """When and how images are cut into tiles."""

    tile_size: int | None = None
    """Longest side of a tile in pixels, at least 128; larger images are tiled. None: tiles of 1024 for images of more
    than 2048 x 1088 pixels."""

    overlap: int = 128
    """Pixels that neighboring tiles share at least, over which they are blended. At most half of a tile; a tile that
    had to become smaller takes a quarter of its side."""

    shared_statistics: bool = True
    """Whether the tiles of an image share the statistics of the network's group norms, which keeps colors from
    differing from tile to tile. It takes a first pass over all tiles, so twice the time, and runs uncompiled."""

    def __post_init__(self) -> None:
        if self.tile_size is not None and self.tile_size < MIN_TILE_SIZE:
            raise ValueError(f"tiling.tile_size must be at least {MIN_TILE_SIZE}, got {self.tile_size}")
        if not 0 <= self.overlap <= (self.tile_size or DEFAULT_TILE_SIZE) // 2:
            raise ValueError(f"tiling.overlap must be in [0, half of the tile size], got {self.overlap}")

    def wanted_tile_size(self, height: int, width: int) -> int | None:
        """Return the tile size for an image of this size, None to run it whole."""
        if self.tile_size is not None:
            return self.tile_size if max(height, width) > self.tile_size else None
        return DEFAULT_TILE_SIZE if height * width > MAX_UNTILED_PIXELS else None


@dataclass(frozen=True, kw_only=True, slots=True)
class TilePlan:
    """Tiles of one size that cover an image; an image that is run whole is a single tile."""

    height: int
    """Rows of every tile."""

    width: int
    """Columns of every tile."""

    tops: tuple[int, ...]
    """First rows of the rows of tiles."""

    lefts: tuple[int, ...]
    """First columns of the columns of tiles."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Go over the top left corners, row by row."""
        return itertools.product(self.tops, self.lefts)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.tops) * len(self.lefts)


def plan_tiles(height: int, width: int, *, tile_size: int | None, overlap: int, multiple: int) -> TilePlan:
    """Cover an image with tiles of equal size.

    Args:
        height: Rows, a multiple of `multiple`.
        width: Columns, a multiple of `multiple`.
        tile_size: Longest side of a tile; None takes the whole image as one tile.
        overlap: Pixels that neighbors share at least.
        multiple: Tiles start and end at multiples of this.
    """
    if tile_size is None:
        return TilePlan(height=height, width=width, tops=(0,), lefts=(0,))
    tile_height, tops = _cover(height, tile_size, overlap, multiple)
    tile_width, lefts = _cover(width, tile_size, overlap, multiple)
    return TilePlan(height=tile_height, width=tile_width, tops=tops, lefts=lefts)


def blend_weights(length: int, tile: int, starts: tuple[int, ...]) -> Float[Tensor, "n length"]:
    """Return how much each tile counts at each position along one axis; the weights of a position sum to 1.

    Within an overlap one tile fades into the other along a squared sine, and a tile counts for nothing near its own
    border, where the network saw padding instead of the image.
    """
    position = torch.arange(length, dtype=torch.float64) + 0.5
    rows = []
    for number, start in enumerate(starts):
        end = start + tile
        weight = ((position >= start) & (position < end)).double()
        if number:
            weight *= _fade(position, start, starts[number - 1] + tile)
        if number + 1 < len(starts):
            weight *= 1.0 - _fade(position, starts[number + 1], end)
        rows.append(weight)
    weights = torch.stack(rows)
    return (weights / weights.sum(dim=0)).float()


def _fade(position: Tensor, start: int, end: int) -> Tensor:
    """Rise from 0 to 1 within [start, end), flat at both ends; a step if there is nothing between."""
    margin = SEAM_MARGIN * (end - start)
    span = end - start - 2 * margin
    ramp = (position - start - margin) / span if span > 0 else (position >= start).double()
    return torch.sin(ramp.clamp(0.0, 1.0) * (math.pi / 2)).square()


def _cover(length: int, tile_size: int, overlap: int, multiple: int) -> tuple[int, tuple[int, ...]]:
    """Return the tile's extent along an axis, no larger than needed, and where the tiles begin, evenly spread."""
    largest = tile_size - tile_size % multiple
    if length <= largest:
        return length, (0,)
    for count in itertools.count(math.ceil((length - overlap) / (largest - overlap))):
        smallest = math.ceil((length + (count - 1) * overlap) / count / multiple) * multiple
        for tile in range(smallest, largest + 1, multiple):
            starts = tuple(multiple * round(i * (length - tile) / (count - 1) / multiple) for i in range(count))
            if all(after - before <= tile - overlap for before, after in itertools.pairwise(starts)):
                return tile, starts
    raise AssertionError("unreachable: more tiles always suffice")
