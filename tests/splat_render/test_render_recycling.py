"""Memory is used again when, and only when, nobody refers to it."""

import numpy as np
import torch

from splat_render.cpu.backend import CpuRasterizer
from splat_render.cpu.recycling import LINE, PATIENCE, RECYCLER, SMALL, Recycler
from splat_render.rasterizer import RenderConfig
from support.splat_scenes import make_camera, make_gaussians, watched

SHAPE = (SMALL, 3)


def test_arrays_in_use_never_share_memory():
    recycler = Recycler()
    arrays = [recycler.empty(SHAPE) for _ in range(3)]
    kept_slice = recycler.empty(SHAPE)[:, 1:2]
    kept_tensor = torch.from_numpy(recycler.empty(SHAPE))[5:]
    arrays += [recycler.empty(SHAPE), kept_slice, kept_tensor.numpy()]
    for index, array in enumerate(arrays):
        array[...] = index
    for index, array in enumerate(arrays):
        assert (array == index).all()
    assert all(array.shape == SHAPE and array.ctypes.data % LINE == 0 for array in arrays[:4])


def test_memory_comes_back_when_the_last_view_is_gone():
    recycler = Recycler()
    array = recycler.empty(SHAPE)
    where = array.ctypes.data
    tensor = torch.from_numpy(array.reshape(-1))[7:]
    del array
    assert recycler.empty(SHAPE).ctypes.data != where
    del tensor
    assert recycler.empty(SHAPE, np.int32).ctypes.data in {where, recycler.empty(SHAPE).ctypes.data}
    assert recycler.num_bytes < 3 * 4 * SMALL * 3


def test_memory_that_nobody_wants_any_more_is_given_up():
    recycler = Recycler()
    recycler.empty((100, SMALL))
    held = recycler.num_bytes
    for _ in range(PATIENCE + 1):
        recycler.empty(SHAPE)
    assert recycler.num_bytes < held / 10


def test_zeros_are_zeros_in_used_memory():
    recycler = Recycler()
    recycler.empty(SHAPE)[...] = 3
    assert not recycler.zeros(SHAPE).any()


def test_renders_that_are_kept_stay_as_they_are():
    gaussians, camera = watched(make_gaussians(500)), make_camera(200, 150)
    rasterizer = CpuRasterizer(RenderConfig(num_threads=1))
    first = rasterizer(gaussians, camera, sh_degree=3)
    copies = [tensor.detach().clone() for tensor in (first.rgb, first.alpha, first.depth)]
    for turn in (0.1, 0.3):
        other = rasterizer(gaussians, make_camera(200, 150, turn=turn), sh_degree=3)
        other.rgb.square().sum().backward()
    for tensor, copy in zip((first.rgb, first.alpha, first.depth), copies, strict=True):
        assert torch.equal(tensor, copy)
    assert RECYCLER.num_bytes > 0
