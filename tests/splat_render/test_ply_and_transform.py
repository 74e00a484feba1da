import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from splat_render import Gaussians, InputError, read_ply, transformed, write_ply
from splat_render.poses import inverse, matrix_from_quat_wxyz, similarity, transform_points
from splat_render.transform import harmonic_rotation, harmonics

ROTATION = matrix_from_quat_wxyz(np.array([0.3, -0.5, 0.7, 0.2]))
T_A_B = similarity(2.5, ROTATION, np.array([1.0, -2.0, 3.0]))


def random_gaussians(n=12, degree=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    return Gaussians(
        means=randn(n, 3),
        log_scales=randn(n, 3) - 2,
        quats_wxyz=randn(n, 4),
        logit_opacities=randn(n),
        sh0=randn(n, 1, 3),
        sh_rest=randn(n, (degree + 1) ** 2 - 1, 3),
    )


def covariances(gaussians):
    rotations = matrix_from_quat_wxyz(gaussians.quats_wxyz.double().numpy())
    halves = rotations * gaussians.scales.double().numpy()[:, None, :]
    return halves @ halves.transpose(0, 2, 1)


def colors(gaussians, directions):
    coefficients = torch.cat([gaussians.sh0, gaussians.sh_rest], dim=1).double().numpy()
    basis = np.concatenate([harmonics(degree, directions) for degree in range(gaussians.sh_degree_max + 1)], axis=1)
    return np.einsum("dk,nkc->ndc", basis, coefficients)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_written_file_reads_back_bitwise(tmp_path, degree):
    gaussians = random_gaussians(degree=degree)
    write_ply(tmp_path / "splat" / "a.ply", gaussians)
    back = read_ply(tmp_path / "splat" / "a.ply")
    for name, tensor in gaussians.parameters().items():
        assert torch.equal(tensor, back.parameters()[name]), name
    assert [path.name for path in (tmp_path / "splat").iterdir()] == ["a.ply"]


def test_the_layout_is_the_papers(tmp_path):
    gaussians = random_gaussians(degree=1)
    write_ply(tmp_path / "a.ply", gaussians, comments=["made in a test"])
    data = PlyData.read(tmp_path / "a.ply")
    names = [prop.name for prop in data["vertex"].properties]
    assert names == (
        ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
        + [f"f_rest_{index}" for index in range(9)]
        + ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    )
    assert data.comments == ["made in a test"]
    vertex = data["vertex"]
    # Channel by channel: f_rest_4 is green's second coefficient.
    np.testing.assert_array_equal(vertex["f_rest_4"], gaussians.sh_rest[:, 1, 1].numpy())
    np.testing.assert_array_equal(vertex["rot_0"], gaussians.quats_wxyz[:, 0].numpy())


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_ply(tmp_path / "none.ply")
    (tmp_path / "text.ply").write_text("hello")
    with pytest.raises(InputError, match="not a PLY file that can be read: it does not begin"):
        read_ply(tmp_path / "text.ply")
    points = np.zeros(3, dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(points, "vertex")]).write(str(tmp_path / "points.ply"))
    with pytest.raises(InputError, match="lacks the properties f_dc_0"):
        read_ply(tmp_path / "points.ply")
    PlyData([PlyElement.describe(points, "face")]).write(str(tmp_path / "faces.ply"))
    with pytest.raises(InputError, match="no vertices"):
        read_ply(tmp_path / "faces.ply")
    write_ply(tmp_path / "a.ply", random_gaussians())
    content = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "short.ply").write_bytes(content[:-10])
    with pytest.raises(InputError, match="truncated"):
        read_ply(tmp_path / "short.ply")
    gaussians = random_gaussians()
    gaussians.means[:, 0] = float("nan")
    write_ply(tmp_path / "nan.ply", gaussians)
    with pytest.raises(InputError, match="not finite in all of its 12 Gaussians"):
        read_ply(tmp_path / "nan.ply")


def test_unwritable_places_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_ply(tmp_path / "file" / "a.ply", random_gaussians())


def test_a_similarity_moves_places_and_shapes():
    gaussians = random_gaussians()
    moved = transformed(gaussians, T_A_B)
    np.testing.assert_allclose(moved.means, transform_points(T_A_B, gaussians.means.numpy()), atol=1e-5)
    expected = 2.5**2 * ROTATION @ covariances(gaussians) @ ROTATION.T
    np.testing.assert_allclose(covariances(moved), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(moved.logit_opacities, gaussians.logit_opacities)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colors_turn_with_the_scene(degree):
    gaussians = random_gaussians(degree=degree)
    moved = transformed(gaussians, T_A_B)
    directions = np.random.default_rng(1).normal(size=(30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(colors(moved, directions @ ROTATION.T), colors(gaussians, directions), atol=1e-5)


def test_moving_there_and_back_changes_nothing():
    gaussians = random_gaussians()
    back = transformed(transformed(gaussians, T_A_B), inverse(T_A_B))
    np.testing.assert_allclose(back.means, gaussians.means, atol=1e-5)
    np.testing.assert_allclose(back.sh_rest, gaussians.sh_rest, atol=1e-5)
    np.testing.assert_allclose(covariances(back), covariances(gaussians), atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rotations_of_harmonics_are_a_group(degree):
    other = matrix_from_quat_wxyz(np.array([0.9, 0.1, -0.3, 0.6]))
    product = harmonic_rotation(degree, ROTATION) @ harmonic_rotation(degree, other)
    np.testing.assert_allclose(harmonic_rotation(degree, ROTATION @ other), product, atol=1e-12)
    np.testing.assert_allclose(harmonic_rotation(degree, np.eye(3)), np.eye(2 * degree + 1), atol=1e-12)


def test_what_is_no_similarity_moves_nothing():
    with pytest.raises(ValueError, match="similarity"):
        transformed(random_gaussians(), np.diag([1.0, 2, 3, 1]))
