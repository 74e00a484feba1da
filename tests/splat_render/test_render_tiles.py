"""Binning of splats into tiles against gsplat's own PyTorch reference."""

import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _isect_offset_encode, _isect_tiles

from splat_render.cpu import layout
from splat_render.cpu.tiles import bin_splats, depth_order


def random_splats(n: int, width: int, height: int, *, seed: int = 0, with_ties: bool = False):
    rng = np.random.default_rng(seed)
    splats = np.zeros((n, layout.NUM_SPLAT_COLUMNS), np.float32)
    splats[:, layout.X] = rng.uniform(-20, width + 20, n)
    splats[:, layout.Y] = rng.uniform(-20, height + 20, n)
    depths = rng.permutation(np.linspace(0.01, 1e5, n)).astype(np.float32)
    if with_ties:
        depths = np.round(depths, -4) + np.float32(0.5)
    radii = rng.integers(0, 30, (n, 2)).astype(np.int32)
    radii[rng.random(n) < 0.2] = 0
    radii[(radii == 0).any(axis=1)] = 0
    return splats, depths, radii


@pytest.mark.parametrize(("width", "height"), [(64, 48), (70, 33), (5, 5)])
def test_lists_are_gsplats(width: int, height: int):
    splats, depths, radii = random_splats(300, width, height)
    tiles_x, tiles_y = -(-width // 16), -(-height // 16)
    ids, places, tile_starts, place_starts = bin_splats(splats, depths.view(np.uint32), radii, tiles_x, tiles_y)
    per_splat, isect_ids, flatten_ids = _isect_tiles(
        torch.from_numpy(splats[None, :, :2]), torch.from_numpy(radii[None]), torch.from_numpy(depths[None]),
        16, tiles_x, tiles_y,
    )  # fmt: skip
    np.testing.assert_array_equal(ids, flatten_ids.numpy())
    offsets = _isect_offset_encode(isect_ids, 1, tiles_x, tiles_y)
    np.testing.assert_array_equal(tile_starts[:-1], offsets.flatten().numpy())
    assert tile_starts[-1] == len(ids)
    np.testing.assert_array_equal(np.diff(place_starts), per_splat[0].numpy())
    # Every intersection is found from its splat, each once.
    np.testing.assert_array_equal(np.sort(places), np.arange(len(ids)))
    np.testing.assert_array_equal(ids[places], np.repeat(np.arange(len(radii)), np.diff(place_starts)))


def test_order_is_by_depth_then_by_index():
    _, depths, radii = random_splats(3000, 64, 64, seed=4, with_ties=True)
    order = depth_order(depths.view(np.uint32), radii)
    wanted = np.argsort(depths, kind="stable")
    assert len(np.unique(depths)) < 20
    np.testing.assert_array_equal(order, wanted[radii[wanted, 0] > 0])


def test_no_splat_gives_empty_lists():
    splats, depths, radii = random_splats(5, 40, 40)
    radii[:] = 0
    for n in (0, 5):
        ids, places, tile_starts, place_starts = bin_splats(splats[:n], depths[:n].view(np.uint32), radii[:n], 3, 3)
        assert len(ids) == len(places) == 0
        assert not tile_starts.any()
        assert place_starts.shape == (n + 1,)
