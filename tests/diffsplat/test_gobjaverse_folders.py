"""Objects of G-Objaverse become the recorded views, and what cannot be read is named."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsplat import GSReconConfig, InputError
from diffsplat.training.config import GSReconTrainConfig
from diffsplat.training.deep_png import read_deep_png
from diffsplat.training.gobjaverse import (
    USABLE,
    GObjaverseViews,
    depth_maps,
    drawn_views,
    object_views,
    polar_of_views,
    read_view,
)
from diffsplat.training.reconstruction import GSReconTask
from train_runs import Loop, LoopConfig

from .conftest import assert_close, reference_folder

pytestmark = pytest.mark.reference

MODELS = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = reference_folder() / "gobjaverse_sample.npz"
    if not path.is_file():
        pytest.skip("gobjaverse_sample.npz is absent: set DIFFSPLAT_REFERENCE_DATA")
    out = tmp_path_factory.mktemp("objects") / "toy"
    out.mkdir()
    with np.load(path) as stored:
        for name in (name for name in stored if name != "uid"):
            (out / name).write_bytes(stored[name].tobytes())
    return out


def recorded_picks(folder: Path, data) -> list[int]:
    """The views that were recorded: the input views are named, the others are found by their cameras."""
    first = data.json("picks_even4")
    views = {index: read_view(folder, index) for index in USABLE}
    places = polar_of_views([views[first[0]], *views.values()])[1:]
    return [list(views)[int((places - row).abs().amax(dim=1).argmin())] for row in data["cam_pose"]]


def test_recorded_views(folder, reference):
    data = reference("gobjaverse_item.safetensors")
    picks = recorded_picks(folder, data)
    num_inputs = len(data.json("picks_even4"))
    assert picks[:num_inputs] == data.json("picks_even4")
    stored = [read_view(folder, index) for index in picks]
    assert_close(polar_of_views(stored), data["cam_pose"], MODELS, "elevation, azimuth, distance")
    size = data["image"].shape[-1]
    views = object_views(stored, size, num_inputs=len(picks))
    assert_close(views.T_world_cam[0], data["C2W"], MODELS, "cameras")
    assert_close(views.fxfycxcy[0], data["fxfycxcy"], MODELS, "intrinsics")
    assert_close(views.rgb[0], data["image"], MODELS, "color")
    assert_close(views.mask[0], data["mask"], MODELS, "mask")
    assert_close(views.normal[0], data["normal"], MODELS, "normals")
    assert_close(views.coord[0], data["coord"], MODELS, "coordinates")
    assert_close(depth_maps(stored, size), data["depth"], MODELS, "depth maps")
    # Depths lead back to the coordinates.
    inside = data["mask"][:, 0] > 0.999
    assert float(views.depth[0, :, 0][inside].min()) > 0.5


def test_views_are_drawn_evenly_and_once():
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = drawn_views(rng)
        assert len(set(drawn)) == 8
        assert set(drawn) <= set(USABLE)
        steps = {(b - a) % (24 if drawn[0] < 24 else 12) for a, b in pairwise(drawn[:4])}
        assert steps == {6 if drawn[0] < 24 else 3}


def test_gsrecon_trains_on_folders(folder):
    objects = GObjaverseViews([folder], 16, num_extra=1, captions={"toy": "a toy"})
    batch = objects.batch([0])
    assert batch.captions == ("a toy",)
    assert batch.images.shape == (1, 4, 9, 16, 16)
    network = GSReconConfig(input_res=16, dim=16, num_blocks=1, num_heads=2)
    task = GSReconTask(GSReconTrainConfig(network=network, batch_size=1, map_weight=1.0), objects)
    with torch.enable_grad():
        loop = Loop(task, None, LoopConfig(max_steps=2, log_every=1))
        loop.train_until(2)
    assert set(loop.history[0].terms) == {"map", "rgb", "mask"}


def test_what_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="none is given"):
        GObjaverseViews([], 16)
    with pytest.raises(InputError, match="nowhere"):
        GObjaverseViews([tmp_path / "nowhere"], 16)
    for name in ("00000.png", "00000_nd.png", "00000.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    whole = (tmp_path / "00000_nd.png").read_bytes()
    (tmp_path / "00000_nd.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"00000_nd\.png"):
        read_view(tmp_path, 0)
    (tmp_path / "00000_nd.png").write_bytes((folder / "00000.png").read_bytes())
    with pytest.raises(InputError, match="16-bit PNG"):
        read_view(tmp_path, 0)
    (tmp_path / "00000_nd.png").unlink()
    exr = tmp_path / "00000_nd.exr"
    exr.write_bytes(whole)  # Folders are about that hold PNG files of this name.
    assert torch.equal(read_view(tmp_path, 0).normal, read_view(folder, 0).normal)
    exr.write_bytes(b"v/1\x01")
    with pytest.raises(InputError, match=r"convert it|cannot be read as OpenEXR"):
        read_view(tmp_path, 0)
    (tmp_path / "00000_nd.png").write_bytes(whole)
    (tmp_path / "00000.json").write_text(json.dumps({"x": [1, 0, 0]}))
    with pytest.raises(InputError, match="no camera"):
        read_view(tmp_path, 0)
    with pytest.raises(InputError, match="cannot be read"):
        read_view(tmp_path, 1)


def test_openexr_says_the_same_as_png(folder, tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
    wanted = read_view(folder, 0)
    stored = torch.cat([wanted.normal, wanted.depth]).numpy()
    for name in ("00000.png", "00000.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    path = tmp_path / "00000_nd.exr"
    OpenEXR.File({}, dict(zip("RGBA", stored, strict=True))).write(str(path))
    found = read_view(tmp_path, 0)
    assert torch.equal(found.normal, wanted.normal)
    assert torch.equal(found.depth, wanted.depth)
    OpenEXR.File({}, dict(zip("RGB", stored[:3], strict=True))).write(str(path))
    with pytest.raises(InputError, match="no channel 'A'"):
        read_view(tmp_path, 0)


def test_deep_png_files_of_every_filter(tmp_path):
    import struct
    import zlib

    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, size=(6, 5, 3)).astype(np.uint16)
    raw = values.astype(">u2").view(np.uint8).reshape(6, 30)
    rows = []
    for row, kind in enumerate((0, 1, 2, 3, 4, 4)):
        line = raw[row].astype(int)
        left = np.concatenate([np.zeros(6, int), line[:-6]])
        above = raw[row - 1].astype(int) if row else np.zeros(30, int)
        corner = np.concatenate([np.zeros(6, int), above[:-6]])
        estimate = left + above - corner
        distances = np.stack([np.abs(estimate - other) for other in (left, above, corner)])
        nearest = np.stack([left, above, corner])[distances.argmin(axis=0), np.arange(30)]
        guess = (0, left, above, (left + above) // 2, nearest)[kind]
        rows.append(bytes([kind]) + ((line - guess) & 255).astype(np.uint8).tobytes())

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_deep_png(path), values)
