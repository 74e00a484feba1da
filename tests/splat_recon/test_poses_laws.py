import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from splat_render import poses
from support.posed_scenes import orbit_camera

UNIT = st.floats(-1, 1, allow_subnormal=False)
QUATS = arrays(np.float64, 4, elements=UNIT).filter(lambda q: np.linalg.norm(q) > 1e-2)
VECTORS = arrays(np.float64, 3, elements=st.floats(-10, 10, allow_subnormal=False))
SIMILARITIES = st.builds(
    lambda scale, quat, vector: poses.similarity(scale, poses.matrix_from_quat_wxyz(quat), vector),
    st.floats(0.05, 20),
    QUATS,
    VECTORS,
)
ROTATIONS = QUATS.map(poses.matrix_from_quat_wxyz)


@given(QUATS)
def test_a_quaternion_gives_a_rotation_and_comes_back(quat):
    rotation = poses.matrix_from_quat_wxyz(quat)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    back = poses.quat_wxyz_from_matrix(rotation)
    assert back[0] >= 0
    assert abs(back @ quat) / np.linalg.norm(quat) == pytest.approx(1, abs=1e-12)


def test_half_turns_have_quaternions():
    for axis in np.eye(3):
        half_turn = 2 * np.outer(axis, axis) - np.eye(3)
        np.testing.assert_allclose(np.abs(poses.quat_wxyz_from_matrix(half_turn)), [0, *axis], atol=1e-15)


@given(SIMILARITIES, SIMILARITIES)
def test_inverses_are_inverse_and_decomposition_is_complete(T_a_b, T_b_c):
    np.testing.assert_allclose(T_a_b @ poses.inverse(T_a_b), np.eye(4), atol=1e-9)
    T_a_c = T_a_b @ T_b_c
    np.testing.assert_allclose(poses.inverse(T_a_c), poses.inverse(T_b_c) @ poses.inverse(T_a_b), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(poses.similarity(*poses.decompose_similarity(T_a_c)), T_a_c, atol=1e-9)


@given(ROTATIONS, ROTATIONS, st.floats(0, 1))
def test_slerp_divides_the_angle(rotation_from, rotation_to, t):
    angle = poses.rotation_angle(rotation_from, rotation_to)
    between = poses.slerp(rotation_from, rotation_to, t)
    assert poses.rotation_angle(rotation_from, between) == pytest.approx(t * angle, abs=1e-6)
    assert poses.rotation_angle(between, rotation_to) == pytest.approx((1 - t) * angle, abs=1e-6)


@given(ROTATIONS, ROTATIONS, ROTATIONS)
def test_the_angle_is_a_metric(a, b, c):
    assert 0 <= poses.rotation_angle(a, b) <= np.pi + 1e-12
    assert poses.rotation_angle(a, a) == pytest.approx(0, abs=1e-7)
    assert poses.rotation_angle(a, b) == pytest.approx(poses.rotation_angle(b, a), abs=1e-12)
    assert poses.rotation_angle(a, c) <= poses.rotation_angle(a, b) + poses.rotation_angle(b, c) + 1e-9


@given(VECTORS.filter(lambda v: np.linalg.norm(v) > 1e-2), st.floats(1e-7, np.pi))
def test_the_angle_of_a_turn_about_an_axis_is_known(axis, angle):
    axis = axis / np.linalg.norm(axis)
    turn = poses.matrix_from_quat_wxyz(np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)]))
    assert poses.rotation_angle(np.eye(3), turn) == pytest.approx(angle, rel=1e-6, abs=1e-12)


@settings(max_examples=25)
@given(SIMILARITIES, VECTORS)
def test_a_moved_camera_sees_the_moved_point_at_the_same_pixel(T_a_b, p_b):
    camera = orbit_camera(1, 3)
    moved = poses.transform_camera(T_a_b, camera)
    p_cam = camera.T_cam_world @ [*p_b, 1]
    p_moved_cam = moved.T_cam_world @ [*poses.transform_points(T_a_b, p_b[None])[0], 1]
    scale, _, _ = poses.decompose_similarity(T_a_b)
    np.testing.assert_allclose(p_moved_cam[:3], scale * p_cam[:3], atol=1e-8 * max(scale, 1))


@pytest.mark.parametrize(
    "wrong", [np.diag([1.0, 2, 1, 1]), np.diag([-1.0, 1, 1, 1]), np.diag([1.0, 1, 1, 2]), np.full((4, 4), np.nan)]
)
def test_what_is_no_similarity_is_refused(wrong):
    with pytest.raises(ValueError, match="similarity"):
        poses.inverse(wrong)


@pytest.mark.reference
def test_slerp_agrees_with_the_reference_data(reference_data):
    data = np.load(reference_data / "geometry" / "pose_interpolator.npz")
    starts, ends, fractions, expected = (data[f"slerp.{name}"] for name in ("R1", "R2", "t", "out"))
    for rotation_from, rotation_to, row in zip(starts, ends, expected, strict=True):
        for t, rotation in zip(fractions, row, strict=True):
            np.testing.assert_allclose(poses.slerp(rotation_from, rotation_to, t), rotation, atol=1e-9)
