"""Splat files far from their world's origin: no rounding that shows, in any format, there and back."""

import json

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from splat_render import InputError, SplatFile, read_splats, write_splats
from splat_render.files.formats import near_zero
from splat_render.files.world_offset import OFFSET, ZERO, offset_for, offset_of
from support.splat_scenes import make_gaussians

UTM = (500_120.0, 4_649_780.0, 120.0)


def in_world(content):
    return content.gaussians.means.double().numpy() + np.array(content.offset)


@pytest.fixture
def gaussians():
    return make_gaussians(40)


@pytest.mark.parametrize(("ending", "atol"), [(".ply", 0), (".compressed.ply", 5e-3), (".spz", 1e-4), (".splat", 0)])
def test_an_offset_goes_through_every_format(tmp_path, gaussians, ending, atol):
    path = tmp_path / f"a{ending}"
    write_splats(path, SplatFile(gaussians=gaussians, offset=UTM))
    back = read_splats(path)
    assert back.offset == UTM
    expected, found = (g.means.double().numpy() for g in (gaussians, back.gaussians))
    distances = np.linalg.norm(found[:, None] - expected[None], axis=2)
    assert distances.min(axis=1).max() <= 2 * atol
    assert sorted(distances.argmin(axis=1)) == list(range(len(expected)))
    assert OFFSET.sidecar(path).exists() == (ending in (".spz", ".splat"))


def test_a_splat_near_its_origin_has_no_offset_and_removes_an_old_one(tmp_path, gaussians):
    path = tmp_path / "a.spz"
    write_splats(path, SplatFile(gaussians=gaussians, offset=UTM))
    write_splats(path, SplatFile(gaussians=gaussians))
    assert read_splats(path).offset == ZERO
    assert [found.name for found in tmp_path.iterdir()] == ["a.spz"]
    write_splats(tmp_path / "a.ply", SplatFile(gaussians=gaussians))
    assert b"WorldOffset" not in (tmp_path / "a.ply").read_bytes()


def test_double_positions_of_other_programs_keep_their_digits(tmp_path, gaussians):
    p_world = gaussians.means.double().numpy() + np.array([500_123.4567, 4_649_776.789, 120.5])
    write_splats(tmp_path / "a.ply", SplatFile(gaussians=gaussians))
    rows = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data
    table = np.empty(len(rows), dtype=[(n, "<f8" if n in "xyz" else rows.dtype[n]) for n in rows.dtype.names])
    for name in rows.dtype.names:
        table[name] = rows[name]
    for index, axis in enumerate("xyz"):
        table[axis] = p_world[:, index]
    PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(str(tmp_path / "far.ply"))
    content = read_splats(tmp_path / "far.ply")
    np.testing.assert_allclose(in_world(content), p_world, atol=1e-6)
    # As SPZ, whose positions have 24 bits, it is no coarser than near the origin.
    write_splats(tmp_path / "far.spz", content)
    np.testing.assert_allclose(in_world(read_splats(tmp_path / "far.spz")), p_world, atol=1e-4)


def test_spz_of_a_far_splat_is_written_near_zero(tmp_path, gaussians):
    far = SplatFile(gaussians=type(gaussians)(**{**gaussians.parameters(), "means": gaussians.means + 1e6}))
    write_splats(tmp_path / "a.spz", far)
    np.testing.assert_allclose(in_world(read_splats(tmp_path / "a.spz")), in_world(far), atol=1e-4)
    moved = near_zero(far)
    assert moved.gaussians.means.abs().max() < 100
    np.testing.assert_array_equal(in_world(moved), in_world(far))


def test_what_is_far_is_measured_against_the_splats_size():
    assert offset_for(np.array([300.0, 0, 0]), 1.5) == ZERO
    assert offset_for(np.array([3012.0, -48.0, 2.0]), 1.5) == (3010.0, -50.0, 0.0)
    assert offset_for(np.array([6371.012, 0, 0]), 1e-3) == (pytest.approx(6371.012), 0.0, 0.0)
    assert offset_for(np.array([np.nan, 0, 0]), 1.0) == ZERO
    assert offset_of(np.zeros((0, 3))) == ZERO
    p = np.random.default_rng(0).normal(size=(100, 3)) + np.array([1e6, 0, 0])
    p[:3], p[3] = 0.0, np.nan
    assert offset_of(p)[0] == pytest.approx(1e6, abs=100)


@pytest.mark.parametrize("content", ["{}", "[", '{"world_offset": [1, 2]}', '{"world_offset": [1, 2, NaN]}', "[1]"])
def test_a_broken_json_beside_a_file_is_refused(tmp_path, gaussians, content):
    write_splats(tmp_path / "a.splat", SplatFile(gaussians=gaussians, offset=UTM))
    assert json.loads(OFFSET.sidecar(tmp_path / "a.splat").read_text()) == {"world_offset": list(UTM)}
    OFFSET.sidecar(tmp_path / "a.splat").write_text(content)
    with pytest.raises(InputError, match=r"a\.splat\.offset\.json.*(repair|remove)"):
        read_splats(tmp_path / "a.splat")


def test_a_broken_line_in_a_header_is_refused(tmp_path, gaussians):
    write_splats(tmp_path / "a.ply", SplatFile(gaussians=gaussians), comments=["WorldOffset: 1 2 somewhere"])
    with pytest.raises(InputError, match="world offset"):
        read_splats(tmp_path / "a.ply")
    assert torch.isfinite(gaussians.means).all()
