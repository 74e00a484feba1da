"""Where novel views go, how they step, and how they are drawn from, kept and restored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from difix3d_nerfstudio.config import MixtureConfig, SteppingConfig, TargetsConfig
from difix3d_nerfstudio.errors import InputError
from difix3d_nerfstudio.novel import NovelView, NovelViews
from difix3d_nerfstudio.rounds import Rendered, novel_view
from difix3d_nerfstudio.targets import OPENGL, between_photos, cameras_at, extent_of, next_poses, poses_of, read_targets
from nerfstudio.cameras.cameras import Cameras, CameraType

from conftest import look_at_origin


def photos(n: int = 4) -> np.ndarray:
    return np.stack([look_at_origin(0.3 * index) @ OPENGL for index in range(n)])


def some_cameras(T_world_cam: np.ndarray, sizes: list[tuple[int, int]]) -> Cameras:
    n = len(T_world_cam)
    return Cameras(
        camera_to_worlds=torch.tensor((T_world_cam @ OPENGL)[:, :3], dtype=torch.float32),
        fx=torch.full((n, 1), 50.0),
        fy=torch.full((n, 1), 55.0),
        cx=torch.tensor([[width / 2] for width, _ in sizes]),
        cy=torch.tensor([[height / 2] for _, height in sizes]),
        width=torch.tensor([[width] for width, _ in sizes]),
        height=torch.tensor([[height] for _, height in sizes]),
        camera_type=CameraType.PERSPECTIVE,
    )


def test_views_between_photos_lie_halfway_between_neighbors():
    poses = photos(4)
    targets = between_photos(poses, 3, extent=extent_of(poses))
    middles = [(poses[i, :3, 3] + poses[i + 1, :3, 3]) / 2 for i in range(3)]
    assert len(targets) == 3
    for middle in middles:
        assert min(np.linalg.norm(target[:3, 3] - middle) for target in targets) < 1e-12
    with pytest.raises(InputError, match="two"):
        between_photos(poses[:1], 3, extent=1.0)


def test_steps_scale_with_the_cameras():
    poses, target = photos(4), look_at_origin(2.5)[None] @ OPENGL
    step = next_poses(poses, target, poses, SteppingConfig(step_distance=0.2), num_references=2)
    assert step.references.shape == (1, 2)
    assert step.references[0, 0] == 3
    moved = np.linalg.norm(step.T_world_cam[0, :3, 3] - poses[3, :3, 3])
    assert moved == pytest.approx(0.2 * extent_of(poses), rel=1e-9)
    larger = 100 * np.ones((4, 4))
    larger[:3, :3], larger[3] = 1, 1
    far = next_poses(
        poses * larger, target * larger, poses * larger, SteppingConfig(step_distance=0.2), num_references=1
    )
    np.testing.assert_allclose(far.T_world_cam[0, :3, 3], 100 * step.T_world_cam[0, :3, 3], rtol=1e-6, atol=1e-6)


def test_cameras_take_intrinsics_and_size_of_their_photo():
    poses = photos(2)
    cameras = cameras_at(poses[[1, 0]], some_cameras(poses, [(20, 10), (30, 16)]), np.array([1, 0]))
    assert cameras.width.flatten().tolist() == [30, 20]
    np.testing.assert_allclose(poses_of(cameras), poses[[1, 0]], atol=1e-6)
    assert cameras.distortion_params is None


def test_targets_of_a_camera_path_and_of_a_transforms_json(tmp_path: Path):
    pose = look_at_origin(0.7)
    path = tmp_path / "camera_path.json"
    path.write_text(json.dumps({"camera_path": [{"camera_to_world": pose.flatten().tolist()}]}), encoding="utf-8")
    np.testing.assert_allclose(read_targets(path, np.eye(4)[:3], 1.0)[0], pose @ OPENGL, atol=1e-12)
    transforms = tmp_path / "transforms.json"
    frames = [{"file_path": "a.png", "transform_matrix": pose.tolist()}]
    applied = [[1, 0, 0, 0.5], [0, 0, 1, 0], [0, -1, 0, 0]]
    transforms.write_text(json.dumps({"frames": frames, "applied_transform": applied}), encoding="utf-8")
    T_frame_data = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]])
    expected = np.vstack([T_frame_data, [0, 0, 0, 1]]) @ pose @ OPENGL
    expected[:3, 3] *= 0.25
    np.testing.assert_allclose(read_targets(transforms, T_frame_data, 0.25)[0], expected, atol=1e-9)
    (tmp_path / "notes.json").write_text("[", encoding="utf-8")
    with pytest.raises(InputError, match=r"notes.json"):
        read_targets(tmp_path / "notes.json", T_frame_data, 1.0)


def test_a_config_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="need a path"):
        TargetsConfig(kind="file")
    with pytest.raises(ValueError, match="novel_prob"):
        MixtureConfig(novel_prob=1.5)


def make_views(sizes: list[tuple[int, int]]) -> NovelViews:
    rng = np.random.default_rng(3)
    views = [
        NovelView(
            np.full((height, width, 3), 10 * index + 5, np.uint8),
            rng.choice(np.array([0, 255], np.uint8), size=(height, width)),
            reference=index + 2,
        )
        for index, (width, height) in enumerate(sizes)
    ]
    return NovelViews(some_cameras(photos(len(sizes)), sizes), views, device="cpu")


@pytest.mark.parametrize("sizes", [[(9, 7)], [(9, 7), (16, 5), (4, 12)]])
def test_pixels_are_drawn_from_one_view_or_views_of_any_sizes(sizes: list[tuple[int, int]]):
    novel = make_views(sizes)
    bundle, batch = novel.rays(4000, torch.Generator().manual_seed(0))
    index = bundle.camera_indices.flatten() - 2
    torch.testing.assert_close(batch["image"][:, 0] * 255, 10.0 * index + 5)
    for number, view in enumerate(novel.views):
        own = index == number
        assert abs(float(own.float().mean()) - 1 / len(sizes)) < 0.05
        assert float(batch["weight"][own].mean()) == pytest.approx(view.weight_u8.mean() / 255, abs=0.06)
        # A ray through a pixel of this view starts where its camera stands.
        torch.testing.assert_close(bundle.origins[own][0], novel.cameras.camera_to_worlds[number, :, 3])


def test_views_survive_a_checkpoint(tmp_path: Path):
    novel = make_views([(9, 7), (16, 5)])
    torch.save(novel.state(), tmp_path / "state.pt")
    again = NovelViews.from_state(torch.load(tmp_path / "state.pt", weights_only=True), device="cpu")
    for one, other in zip(novel.views, again.views, strict=True):
        np.testing.assert_array_equal(one.rgb_u8, other.rgb_u8)
        np.testing.assert_array_equal(one.weight_u8, other.weight_u8)
        assert one.reference == other.reference
    assert torch.equal(novel.cameras.camera_to_worlds, again.cameras.camera_to_worlds)
    assert len(again.joined(novel)) == 4


def test_a_transparent_pixel_does_not_count():
    alpha = torch.tensor([[0.9, 0.2], [0.5, 0.51]])
    view = novel_view(Rendered(torch.zeros(2, 2, 3), alpha), torch.ones(2, 2, 3), 1, MixtureConfig(alpha_threshold=0.5))
    assert view.weight_u8.tolist() == [[255, 0], [0, 255]]
    assert view.rgb_u8.min() == 255
