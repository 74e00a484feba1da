"""Splat files as other programs write them, and as disks and downloads leave them."""

import gzip
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from splat_render import (
    Camera,
    Gaussians,
    InputError,
    SplatFile,
    make_rasterizer,
    read_ply,
    read_splats,
    write_ply,
    write_splats,
)
from splat_render.files.ply_tables import read_ply_tables
from splat_render.spherical_harmonics import C0

N = 40

UNPACK = zlib.decompressobj


def gaussians(n=N, degree=1):
    rng = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(n, 3, generator=rng),
        log_scales=torch.randn(n, 3, generator=rng) * 0.3 - 3,
        quats_wxyz=torch.randn(n, 4, generator=rng),
        logit_opacities=torch.randn(n, generator=rng),
        sh0=torch.randn(n, 1, 3, generator=rng) * 0.5,
        sh_rest=torch.randn(n, (degree + 1) ** 2 - 1, 3, generator=rng) * 0.1,
    )


def splat_ply(path, *, without=(), text: Any = False, order: Any = "<", elements: Any = (), **more):
    """A splat file without some properties and with others; `elements` stand before its vertices."""
    write_ply(path, gaussians())
    rows = PlyData.read(str(path))["vertex"].data
    names = [name for name in rows.dtype.names if not name.startswith(tuple(without) or ("-",))]
    fields = [(name, rows.dtype[name]) for name in names if name not in more]
    fields += [(name, kind) for name, (kind, _) in more.items()]
    table = np.empty(len(rows), dtype=fields)
    for name, kind in fields:
        if name not in more:
            table[name] = rows[name]
        elif isinstance(kind, str) and kind == "O":
            for index, values in enumerate(more[name][1]):
                table[name][index] = values
        else:
            table[name] = more[name][1]
    lists = {name: "i4" if name == "seen" else "f4" for name, (kind, _) in more.items() if isinstance(kind, str)}
    vertices = PlyElement.describe(table, "vertex", val_types=lists)
    PlyData([*elements, vertices], text=text, byte_order=order).write(str(path))
    return path


COLORS = np.array([0.5, 0.25, 1.0])


@pytest.mark.parametrize(
    "names",
    [
        ("red", "green", "blue"),
        ("Red", "Green", "Blue"),
        ("r", "g", "b"),
        ("diffuse_red", "diffuse_green", "diffuse_blue"),
        ("rgb_0", "rgb_1", "rgb_2"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "white"), [("f4", 1), ("f8", 1), ("f4", 255), ("u1", 255), ("u2", 65535), ("i4", 255)]
)
def test_colors_are_read_under_every_usual_name_and_type(tmp_path, names, kind, white):
    columns = {name: (kind, np.dtype(kind).type(value * white)) for name, value in zip(names, COLORS, strict=True)}
    path = splat_ply(tmp_path / "a.ply", without=("f_",), **columns)
    found = read_ply(path).sh0[:, 0].numpy() * C0 + 0.5
    np.testing.assert_allclose(found, np.tile(COLORS, (N, 1)), atol=1 / 255)


def test_own_harmonics_go_before_colors(tmp_path):
    path = splat_ply(tmp_path / "a.ply", red=("u1", 9), green=("u1", 9), blue=("u1", 9))
    assert torch.equal(read_ply(path).sh0, gaussians().sh0)


@pytest.mark.parametrize("ending", [".ply", ".splat"])
def test_gaussians_that_are_not_finite_are_left_out_and_counted(tmp_path, caplog, ending):
    broken = gaussians(degree=0)
    path = tmp_path / f"a{ending}"
    if ending == ".ply":
        broken.means[3, 0], broken.sh0[5, 0, 1], broken.log_scales[7, 2] = np.nan, np.inf, 90.0
        write_splats(path, SplatFile(gaussians=broken))
    else:
        write_splats(path, SplatFile(gaussians=broken))
        records = bytearray(path.read_bytes())
        for index in (3, 5, 7):
            records[32 * index : 32 * index + 4] = struct.pack("<f", np.nan)
        path.write_bytes(records)
    assert len(read_splats(path).gaussians) == N - 3
    assert f"3 of {N} Gaussians hold values that are not finite, and are left out" in caplog.text


def test_a_rotation_of_length_zero_is_none(tmp_path):
    lost = gaussians()
    lost.quats_wxyz[2] = 0
    write_ply(tmp_path / "a.ply", lost)
    assert read_ply(tmp_path / "a.ply").quats_wxyz[2].tolist() == [1, 0, 0, 0]


def test_mip_splattings_filter_is_applied(tmp_path, caplog):
    """Against the definition: variances grow by its square, opacities fall by the ratio of the volumes."""
    width = np.linspace(0, 0.2, N).astype(np.float32)
    path = splat_ply(tmp_path / "a.ply", filter_3D=("f4", width))
    file, before = read_splats(path), gaussians()
    variances = before.scales.double().numpy() ** 2
    grown = variances + width[:, None].astype(np.float64) ** 2
    np.testing.assert_allclose(file.gaussians.scales.numpy(), np.sqrt(grown), rtol=1e-5)
    expected = before.opacities.double().numpy() * np.sqrt(variances.prod(axis=1) / grown.prod(axis=1))
    np.testing.assert_allclose(file.gaussians.opacities.numpy(), expected, rtol=1e-4)
    assert file.antialiased
    assert "filter_3D" in caplog.text


def test_2d_gaussians_are_flat(tmp_path, caplog):
    path = splat_ply(tmp_path / "a.ply", without=("scale_2",))
    scales = read_ply(path).scales
    torch.testing.assert_close(scales[:, :2], gaussians().scales[:, :2])
    torch.testing.assert_close(scales[:, 2], scales[:, :2].max(dim=1).values * 1e-3)
    assert "2D Gaussians" in caplog.text


def test_flat_gaussians_are_drawn(tmp_path):
    flat = gaussians()
    flat.log_scales[:, 1] = -np.inf
    write_ply(tmp_path / "a.ply", flat)
    read = read_ply(tmp_path / "a.ply")
    assert len(read) == N
    K = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    camera = Camera(T_world_cam=np.eye(4), K=K, width=48, height=32)
    assert torch.isfinite(make_rasterizer("cpu")(read, camera, sh_degree=1).rgb).all()


def with_header(path, old, new):
    write_ply(path, gaussians())
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize("line", ["Gebäude".encode(), "Gebäude".encode("latin-1"), "東京".encode("shift-jis")])
def test_comments_come_in_any_encoding(tmp_path, line):
    path = with_header(tmp_path / "a.ply", b"1.0\n", b"1.0\ncomment made by " + line + b"\nobj_info " + line + b"\n")
    assert torch.equal(read_ply(path).means, gaussians().means)


def test_headers_may_end_their_lines_as_windows_does(tmp_path):
    write_ply(tmp_path / "a.ply", gaussians())
    content = (tmp_path / "a.ply").read_bytes()
    end = content.index(b"end_header\n") + len(b"end_header\n")
    (tmp_path / "a.ply").write_bytes(content[:end].replace(b"\n", b"\r\n") + content[end:])
    assert torch.equal(read_ply(tmp_path / "a.ply").means, gaussians().means)


@pytest.mark.parametrize(("text", "order"), [(True, "<"), (False, "<"), (False, ">")])
def test_text_and_both_byte_orders_are_read(tmp_path, text, order):
    read = read_ply(splat_ply(tmp_path / "a.ply", text=text, order=order))
    for name, tensor in gaussians().parameters().items():
        assert torch.equal(read.parameters()[name], tensor)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_lists_do_no_harm(tmp_path, text, uneven):
    """Faces before the vertices, and a list in the vertices themselves, of one length or of several."""
    faces = np.empty(3, dtype=[("vertex_indices", "O"), ("flags", "u1")])
    seen = [np.arange(1 + (index % 3 if uneven else 2), dtype="i4") for index in range(N)]
    for index in range(3):
        faces[index] = (np.arange(3 + index, dtype="i4"), index)
    elements = [PlyElement.describe(faces, "face")]
    path = splat_ply(tmp_path / "a.ply", text=text, elements=elements, seen=("O", seen))
    read = read_ply(path)
    torch.testing.assert_close(read.means, gaussians().means)
    torch.testing.assert_close(read.sh_rest, gaussians().sh_rest)


@pytest.mark.parametrize("text", [False, True])
def test_lists_of_one_length_are_properties(tmp_path, text):
    own = gaussians()
    lists = {"scale": own.log_scales.numpy(), "rot": own.quats_wxyz.numpy(), "f_dc": own.sh0[:, 0].numpy()}
    columns = {name: ("O", list(values)) for name, values in lists.items()}
    path = splat_ply(tmp_path / "a.ply", without=("scale_", "rot_", "f_dc_"), text=text, **columns)
    read = read_ply(path)
    for name, tensor in own.parameters().items():
        torch.testing.assert_close(read.parameters()[name], tensor)


@pytest.mark.parametrize(
    "count", [b"41", b"9999999999", b"9999999999999999999999", b"9" * 5000, b"-1", b"4e1", b"\xb2"]
)
def test_absurd_counts_are_refused(tmp_path, count):
    with pytest.raises(InputError, match=r"a\.ply is not a PLY file that can be read"):
        read_ply(with_header(tmp_path / "a.ply", b"vertex 40", b"vertex " + count))


def test_absurd_counts_of_what_is_not_read_are_no_matter_after_the_vertices(tmp_path):
    path = with_header(
        tmp_path / "a.ply", b"end_header", b"element face 99999999\nproperty list uchar int vertices\nend_header"
    )
    assert len(read_ply(path)) == N


def test_point_clouds_are_named(tmp_path):
    table = np.zeros(3, dtype=[(name, "f4") for name in "xyz"])
    PlyData([PlyElement.describe(table, "vertex")]).write(str(tmp_path / "a.ply"))
    with pytest.raises(InputError, match="it is a point cloud or a mesh"):
        read_ply(tmp_path / "a.ply")


TEXT, BINARY = b"ply\nformat ascii 1.0\n", b"ply\nformat binary_little_endian 1.0\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ply",
        b"ply\n",
        TEXT,
        TEXT + b"element\nend_header\n",
        b"ply\nformat words 1.0\nend_header\n",
        b"ply\nproperty float x\nend_header\n",
        b"ply\nend_header\n",
        TEXT + b"element vertex 1\nproperty half x\nend_header\n1\n",
        TEXT + b"element vertex 1\nproperty float x\nproperty float x\nend_header\n1 1\n",
        TEXT + b"element vertex 1\nproperty float x\nelement vertex 1\nproperty float x\nend_header\n1\n1\n",
        TEXT + b"element vertex 1\nproperty float x\nend_header\nhello\n",
        TEXT + b"element vertex 2\nproperty float x\nend_header\n1 2\n3 4\n",
        TEXT + b"element vertex 3\nproperty float x\nend_header\n1\n2\n\n\n\n\n\n",
        TEXT + b"element vertex 3\nproperty float x\nend_header\n\n\n\n\n\n\n\n",
        TEXT + b"element vertex 1\nproperty list float int x\nend_header\n1 1\n",
        TEXT + b"element vertex 1\nproperty list uchar int x\nend_header\n200 1\n",
        BINARY + b"element vertex 1\nproperty list int int x\nend_header\n\xff\xff\xff\xff____",
    ],
)
def test_broken_headers_and_rows_are_refused(tmp_path, content):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.ply is not a PLY file that can be read"):
        read_ply_tables(tmp_path / "a.ply", ("vertex",))


def spz(path, *, n=N, claimed=None, tail=b"", flags=0):
    body = np.random.default_rng(0).integers(0, 256, 20 * n, dtype=np.uint8).tobytes()
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, n if claimed is None else claimed, 0, 12, flags, 0)
    path.write_bytes(gzip.compress(header + body + tail))
    return path


def test_spz_files_hold_what_their_header_claims(tmp_path):
    assert len(read_splats(spz(tmp_path / "a.spz")).gaussians) == N
    for claimed, words in ((N - 1, "more than the 39 Gaussians"), (N + 1, "truncated"), (2**31, "cannot hold")):
        with pytest.raises(InputError, match=words):
            read_splats(spz(tmp_path / "a.spz", claimed=claimed))
    with pytest.raises(InputError, match="more than the 40 Gaussians"):
        read_splats(spz(tmp_path / "a.spz", tail=bytes(1 << 20)))
    assert len(read_splats(spz(tmp_path / "a.spz", tail=b"extension", flags=2)).gaussians) == N


class Bounded:
    """An unpacker that is never asked for much."""

    def __init__(self, wbits):
        self._own = UNPACK(wbits=wbits)
        self.unconsumed_tail = b""

    def decompress(self, packed, count):
        assert 0 < count <= 1 << 20
        content = self._own.decompress(packed, count)
        self.unconsumed_tail = self._own.unconsumed_tail
        return content


def test_claims_beyond_what_gzip_can_pack_take_no_memory(tmp_path, monkeypatch):
    """27 million Gaussians of zeros are half a gigabyte, in a file of a few hundred bytes that ends early."""
    path = spz(tmp_path / "a.spz", claimed=27_000_000)
    monkeypatch.setattr("zlib.decompressobj", Bounded)
    with pytest.raises(InputError, match="27000000 Gaussians are 514 MiB"):
        read_splats(path)
