import gzip
import shutil
import struct
import subprocess

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from image_metrics import psnr
from splat_recon import InputError, SplatModel
from splat_render import SplatFile, make_rasterizer, read_ply, read_splats, transformed, write_ply, write_splats
from splat_render.files.formats import ENDINGS, ending_of
from splat_render.files.spz import read_spz, write_spz
from support.splat_scenes import make_camera, make_gaussians

TOOL = ["npx", "--yes", "--prefer-offline", "@playcanvas/splat-transform@3.7.0"]
"""A converter of other people, in another language."""

LEAST_PSNR = {".compressed.ply": 38.0, ".ply": 100.0, ".spz": 34.0, ".splat": 37.0}
"""In dB, of a render after a round trip against the one before; .splat against one without view-dependent color."""

HALF_TURN = np.diag([1.0, -1.0, -1.0, 1.0])


def picture(gaussians, degree=None):
    rasterize = make_rasterizer("cpu")
    degree = gaussians.sh_degree_max if degree is None else degree
    return rasterize(gaussians, make_camera(160, 120), sh_degree=degree).rgb.clamp(0, 1)


def loss_of(before, after, ending):
    return psnr(picture(after), picture(before, 0 if ending == ".splat" else None))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_round_trip_keeps_the_picture(tmp_path, ending, degree):
    gaussians = make_gaussians(1500, degree, scale=0.06, degree=degree)
    path = tmp_path / "deep" / f"a{ending}"
    write_splats(path, SplatFile(gaussians=gaussians, antialiased=True), comments=["made in a test"])
    back = read_splats(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert back.gaussians.sh_degree_max == (0 if ending == ".splat" else degree)
    assert back.antialiased == (ending != ".splat")
    assert loss_of(gaussians, back.gaussians, ending) >= LEAST_PSNR[ending]


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ".ply"])
def test_values_come_back_within_the_stated_steps(tmp_path, ending):
    gaussians = make_gaussians(700, 3, scale=0.06)
    path = tmp_path / f"a{ending}"
    write_splats(path, SplatFile(gaussians=gaussians))
    back = read_splats(path).gaussians
    if ending != ".spz":
        # These formats order the Gaussians in their own way: pair them by place.
        nearest = torch.cdist(gaussians.means.double(), back.means.double()).argmin(dim=1)
        assert len(nearest.unique()) == len(gaussians)
        back = back.mapped(lambda tensor: tensor[nearest])
    steps = {
        ".compressed.ply": {"means": 5e-3, "log_scales": 5e-3, "quats": 2e-3},
        ".spz": {"means": 2**-16, "log_scales": 1 / 32, "quats": 2e-3},
        ".splat": {"means": 0.0, "log_scales": 1e-6, "quats": 1e-2},
    }[ending]
    assert (back.means - gaussians.means).abs().max() <= steps["means"]
    assert (back.log_scales - gaussians.log_scales).abs().max() <= steps["log_scales"] + 1e-6
    unit = torch.nn.functional.normalize(gaussians.quats_wxyz)
    assert 1 - (unit * back.quats_wxyz).sum(dim=1).abs().min() <= steps["quats"]
    assert (back.opacities - gaussians.opacities).abs().max() <= 0.51 / 255
    if ending != ".splat":
        limit = 4.0 if ending == ".compressed.ply" else 127 / 128
        step = 1 / 64 if ending == ".compressed.ply" else 1 / 16
        expected = gaussians.sh_rest.clamp(-limit, limit)
        assert (back.sh_rest - expected).abs().max() <= step + 1e-6


def test_files_are_small_and_the_same_every_time(tmp_path):
    gaussians = make_gaussians(2000, 1)
    sizes = {}
    for ending in ENDINGS:
        for name in ("a", "b"):
            write_splats(tmp_path / (name + ending), SplatFile(gaussians=gaussians))
        content = (tmp_path / ("a" + ending)).read_bytes()
        assert content == (tmp_path / ("b" + ending)).read_bytes()
        sizes[ending] = len(content)
    assert sizes[".compressed.ply"] < 0.3 * sizes[".ply"]
    assert sizes[".spz"] < 0.2 * sizes[".ply"]
    assert sizes[".splat"] == 32 * 2000


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_gaussian_and_one_gaussian_are_files_too(tmp_path, ending):
    for n in (0, 1):
        gaussians = make_gaussians(4).mapped(lambda tensor, n=n: tensor[:n])
        write_splats(tmp_path / f"a{ending}", SplatFile(gaussians=gaussians))
        assert len(read_splats(tmp_path / f"a{ending}").gaussians) == n


def test_a_compressed_file_has_the_layout_that_viewers_read(tmp_path):
    gaussians = make_gaussians(300, 2, degree=1)
    write_splats(tmp_path / "a.compressed.ply", SplatFile(gaussians=gaussians))
    data = PlyData.read(tmp_path / "a.compressed.ply")
    chunk, vertex, sh = data.elements
    assert [chunk.name, vertex.name, sh.name] == ["chunk", "vertex", "sh"]
    assert [chunk.count, vertex.count, sh.count] == [2, 300, 300]
    names = [prop.name for prop in chunk.properties]
    assert names[:6] == ["min_x", "min_y", "min_z", "max_x", "max_y", "max_z"]
    assert names[6:12] == [f"{side}_scale_{axis}" for side in ("min", "max") for axis in "xyz"]
    assert names[12:] == ["min_r", "min_g", "min_b", "max_r", "max_g", "max_b"]
    assert [prop.name for prop in vertex.properties] == [
        "packed_position",
        "packed_rotation",
        "packed_scale",
        "packed_color",
    ]
    assert [prop.name for prop in sh.properties] == [f"f_rest_{index}" for index in range(9)]
    # x in the 11 highest bits, y in 10, z in 11, between the bounds of the chunk.
    packed = int(vertex["packed_position"][0])
    t = np.array([packed >> 21, packed >> 11 & 1023, packed & 2047]) / [2047, 1023, 2047]
    low, high = (np.array([chunk[f"{side}_{axis}"][0] for axis in "xyz"]) for side in ("min", "max"))
    assert np.linalg.norm(gaussians.means.numpy() - (low + t * (high - low)), axis=1).min() < 5e-3


def test_degrees_that_are_nearly_zero_are_left_out_of_a_compressed_file(tmp_path):
    gaussians = make_gaussians(40, 1)
    gaussians.sh_rest[:, 3:] *= 1e-3
    write_splats(tmp_path / "a.compressed.ply", SplatFile(gaussians=gaussians))
    assert read_splats(tmp_path / "a.compressed.ply").gaussians.sh_degree_max == 1


def test_spz_has_the_published_layout_in_opengls_axes(tmp_path):
    gaussians = make_gaussians(50, 4, degree=2)
    write_spz(tmp_path / "a.spz", gaussians, antialiased=True)
    content = gzip.decompress((tmp_path / "a.spz").read_bytes())
    magic, version, n, degree, bits, flags, reserved = struct.unpack_from("<4sIIBBBB", content)
    assert (magic, version, n, degree, flags, reserved) == (b"NGSP", 3, 50, 2, 1, 0)
    assert len(content) == 16 + 50 * (9 + 1 + 3 + 3 + 4 + 24)
    first = [int.from_bytes(content[16 + 3 * axis : 19 + 3 * axis], "little", signed=True) for axis in range(3)]
    np.testing.assert_allclose(np.array(first) / 2**bits, gaussians.means[0].numpy() * [1, -1, -1], atol=2**-bits)
    colors = np.frombuffer(content, np.uint8, count=3, offset=16 + 50 * 10)
    np.testing.assert_allclose(colors / 255, np.clip(gaussians.sh0[0, 0].numpy() * 0.15 + 0.5, 0, 1), atol=0.51 / 255)
    scales = np.frombuffer(content, np.uint8, count=3, offset=16 + 50 * 13)
    np.testing.assert_allclose(scales / 16 - 10, gaussians.log_scales[0].numpy(), atol=1 / 32)
    # The coefficients are those of the turned Gaussians, color channels innermost.
    turned = transformed(gaussians, HALF_TURN)
    rest = np.frombuffer(content, np.uint8, count=24, offset=16 + 50 * 20).reshape(8, 3)
    np.testing.assert_allclose((rest - 128.0) / 128, np.clip(turned.sh_rest[0].numpy(), -1, 0.99), atol=1 / 16 + 1e-6)


def test_spz_of_version_2_and_of_degree_4_is_read(tmp_path):
    quat = np.array([0.5, -0.5, 0.5])  # x y z of a rotation with w = 0.5, in the file's axes.
    parts = [
        struct.pack("<4sIIBBBB", b"NGSP", 2, 1, 4, 12, 0, 0),
        b"".join(int(value * 4096).to_bytes(3, "little", signed=True) for value in (1.0, -2.0, 3.5)),
        bytes([255]),
        bytes([128, 0, 255]),
        bytes([160, 144, 96]),
        bytes(np.round((quat + 1) * 127.5).astype(np.uint8)),
        bytes([128] * 45 + [200] * 27),
    ]
    (tmp_path / "a.spz").write_bytes(gzip.compress(b"".join(parts)))
    gaussians, antialiased = read_spz(tmp_path / "a.spz")
    assert not antialiased
    np.testing.assert_allclose(gaussians.means, [[1.0, 2.0, -3.5]])
    np.testing.assert_allclose(gaussians.log_scales, [[0.0, -1.0, -4.0]])
    np.testing.assert_allclose(gaussians.quats_wxyz, [[0.5, 0.5, 0.5, -0.5]], atol=0.01)
    assert gaussians.opacities[0] > 0.998
    assert gaussians.sh_rest.shape == (1, 15, 3)
    assert not gaussians.sh_rest.any()


def test_far_scenes_fit_into_spz(tmp_path):
    gaussians = make_gaussians(20)
    gaussians.means[3, 1] = 40_000.0
    write_spz(tmp_path / "a.spz", gaussians)
    assert read_spz(tmp_path / "a.spz")[0].means[3, 1] == pytest.approx(40_000, abs=0.01)
    gaussians.means[3, 1] = 1e8
    with pytest.raises(InputError, match="from the origin"):
        write_spz(tmp_path / "b.spz", gaussians)


def rewritten(path, change, text=False):
    """The PLY file with its vertices changed."""
    data = PlyData.read(path)
    vertices = change(data["vertex"].data)
    PlyData([PlyElement.describe(vertices, "vertex")], text=text).write(str(path))


def selected(vertices, names, **more):
    fields = [(name, vertices.dtype[name]) for name in names] + [(name, kind) for name, (kind, _) in more.items()]
    chosen = np.empty(len(vertices), dtype=fields)
    for name in names:
        chosen[name] = vertices[name]
    for name, (_, value) in more.items():
        chosen[name] = value
    return chosen


def test_ply_files_of_other_programs_are_read(tmp_path):
    gaussians = make_gaussians(30, 5, degree=2)
    path = tmp_path / "a.ply"
    # As text, without normals, in another order, with columns of its own.
    write_ply(path, gaussians)
    rewritten(
        path,
        lambda v: selected(
            v, [n for n in reversed(v.dtype.names) if n[0] != "n"], label=("i4", 7), confidence=("f8", 1)
        ),
        text=True,
    )
    back = read_ply(path)
    for name, tensor in gaussians.parameters().items():
        torch.testing.assert_close(back.parameters()[name], tensor, msg=name, rtol=1e-6, atol=1e-6)
    # Colors in place of spherical harmonics.
    write_ply(path, gaussians)
    colors = {"red": ("u1", 255), "green": ("u1", 0), "blue": ("u1", 128)}
    rewritten(path, lambda v: selected(v, [n for n in v.dtype.names if not n.startswith("f_")], **colors))
    back = read_ply(path)
    np.testing.assert_allclose(back.sh0[0, 0] * 0.28209479 + 0.5, [1, 0, 128 / 255], atol=1e-6)
    assert back.sh_rest.shape == (30, 0, 3)
    # Degree 4, of which degrees 1 to 3 are kept; and an opacity of exactly one.
    write_ply(path, gaussians)
    rest = {f"f_rest_{index}": ("f4", float(index)) for index in range(72)}
    rewritten(path, lambda v: selected(v, [n for n in v.dtype.names if not n.startswith("f_rest")], **rest))
    rewritten(path, lambda v: selected(v, [n for n in v.dtype.names if n != "opacity"], opacity=("f4", np.inf)))
    back = read_ply(path)
    assert back.sh_rest[0, :, 1].tolist() == [24.0 + index for index in range(15)]
    assert back.opacities.min() > 0.999
    assert torch.isfinite(back.logit_opacities).all()


def test_wrong_files_are_refused_in_a_sentence(tmp_path):
    gaussians = make_gaussians(300)
    for ending in ENDINGS[2:]:
        with pytest.raises(InputError, match="no file"):
            read_splats(tmp_path / f"none{ending}")
    with pytest.raises(InputError, match="ends in"):
        ending_of(tmp_path / "a.obj")
    write_spz(tmp_path / "a.spz", gaussians)
    content = (tmp_path / "a.spz").read_bytes()
    unzipped = gzip.decompress(content)
    for broken, sentence in (
        (content[: len(content) // 2], "truncated"),
        (b"hello, this is text", "no SPZ"),
        (gzip.compress(b"XXXX" + unzipped[4:]), "no SPZ"),
        (gzip.compress(unzipped[:4] + b"\x09" + unzipped[5:]), "version 9"),
        (gzip.compress(unzipped[:-1]), "truncated"),
        (gzip.compress(unzipped[:8] + b"\xff\xff\xff\xff" + unzipped[12:]), "cannot hold"),
        (unzipped, "version 4 or newer"),
    ):
        (tmp_path / "b.spz").write_bytes(broken)
        with pytest.raises(InputError, match=sentence):
            read_splats(tmp_path / "b.spz")
    (tmp_path / "b.splat").write_bytes(b"123")
    with pytest.raises(InputError, match="multiple of 32"):
        read_splats(tmp_path / "b.splat")
    (tmp_path / "b.splat").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="not finite"):
        read_splats(tmp_path / "b.splat")
    write_splats(tmp_path / "a.compressed.ply", SplatFile(gaussians=gaussians))
    data = PlyData.read(tmp_path / "a.compressed.ply")
    PlyData([PlyElement.describe(data["chunk"].data[:1], "chunk"), data["vertex"]]).write(str(tmp_path / "b.ply"))
    with pytest.raises(InputError, match="1 chunks for 300"):
        read_splats(tmp_path / "b.ply")
    gaussians.log_scales[0, 0] = float("nan")
    for ending in (".compressed.ply", ".spz", ".splat"):
        with pytest.raises(InputError, match="log_scales that are not finite"):
            write_splats(tmp_path / f"c{ending}", SplatFile(gaussians=gaussians))
        assert not (tmp_path / f"c{ending}").exists()
    (tmp_path / "file").write_text("")
    for ending in ENDINGS:
        with pytest.raises(InputError, match="cannot write"):
            write_splats(tmp_path / "file" / f"c{ending}", SplatFile(gaussians=make_gaussians(3)))


def converted(source, target, *actions):
    command = [*TOOL, "-q", "-w", str(source), *actions, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_another_program_reads_and_writes_the_same(tmp_path):
    if shutil.which("npx") is None:
        pytest.skip("npx is not installed")
    probe = subprocess.run([*TOOL, "--version"], capture_output=True, text=True, timeout=300, check=False)
    if probe.returncode != 0:
        pytest.skip(f"@playcanvas/splat-transform cannot be run: {probe.stderr.strip()[-200:]}")
    gaussians = make_gaussians(3000, 0, scale=0.05)
    write_ply(tmp_path / "a.ply", gaussians)
    # That program takes and leaves SPZ in PLY's axes; the format's own are half a turn about x away.
    turn = {".spz": ["-r", "180,0,0"]}
    for ending in ENDINGS:
        write_splats(tmp_path / f"b{ending}", SplatFile(gaussians=gaussians, antialiased=True))
        converted(tmp_path / f"b{ending}", tmp_path / "theirs.ply", *turn.get(ending, []))
        theirs = read_splats(tmp_path / "theirs.ply")
        assert loss_of(gaussians, theirs.gaussians, ending) >= LEAST_PSNR[ending], ending
        assert theirs.antialiased == (ending != ".splat")
    for ending, more in ((".compressed.ply", []), (".spz", ["--spz-version", "3"])):
        converted(tmp_path / "a.ply", tmp_path / f"c{ending}", *turn.get(ending, []), *more)
        assert loss_of(gaussians, read_splats(tmp_path / f"c{ending}").gaussians, ending) >= LEAST_PSNR[ending], ending


def test_a_file_without_gaussians_is_nothing_to_look_at(tmp_path):
    """An empty .splat file has no header that could tell it from a download that failed."""
    (tmp_path / "a.splat").write_bytes(b"")
    with pytest.raises(InputError, match="holds no Gaussians"):
        SplatModel.of_file(tmp_path / "a.splat")
