"""Where novel views go, and how far they move per round; poses are camera to world with OpenCV axes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from difix3d_nerfstudio.config import SteppingConfig, TargetsConfig
from difix3d_nerfstudio.errors import InputError
from difix_model.references.poses import pose_distances
from difix_model.references.stepping import interpolated_pose, stepped_poses

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Axes of nerfstudio's cameras in those of OpenCV, and the other way round."""


def poses_of(cameras: Cameras) -> np.ndarray:
    """Poses ``[n 4 4]`` of nerfstudio's cameras, camera to world, OpenCV axes, float64."""
    T_world_cam = np.tile(np.eye(4), (len(cameras), 1, 1))
    T_world_cam[:, :3] = cameras.camera_to_worlds.detach().cpu().numpy()
    return T_world_cam @ OPENGL


def extent_of(T_world_cam: np.ndarray) -> float:
    """Largest distance of a camera from their mean; 1 where all stand in one place."""
    centers = T_world_cam[:, :3, 3]
    extent = float(np.linalg.norm(centers - centers.mean(axis=0), axis=-1).max())
    return extent if extent > 1e-9 else 1.0


def between_photos(T_world_cam: np.ndarray, num_views: int, *, extent: float) -> np.ndarray:
    """Poses in the middle between each photo and the nearest others, each pair once, the nearest pairs first."""
    if len(T_world_cam) < 2:
        raise InputError("there is one photo only: novel views between photos need two; give --pipeline.targets.kind")
    distances = pose_distances(T_world_cam, T_world_cam, extent=extent)
    np.fill_diagonal(distances, np.inf)
    pairs: dict[tuple[int, int], float] = {}
    for rank in range(len(T_world_cam) - 1):
        for one, other in enumerate(np.argsort(distances, axis=1, kind="stable")[:, rank]):
            pairs.setdefault((min(one, int(other)), max(one, int(other))), float(rank))
        if len(pairs) >= num_views:
            break
    chosen = sorted(pairs, key=lambda pair: (pairs[pair], distances[pair], pair))[:num_views]
    return np.stack([interpolated_pose(T_world_cam[one], T_world_cam[other], 0.5) for one, other in chosen])


def read_targets(path: Path, T_frame_data: np.ndarray, scale: float) -> np.ndarray:
    """Poses of a file in the frame that nerfstudio trains in.

    Args:
        path: A COLMAP folder or a JSON file.
        T_frame_data: ``[3 4]``, the dataparser's transform.
    """
    from difix_model.errors import InputError as ModelInputError
    from difix_model.references.camera_poses import read_poses

    try:
        if path.suffix == ".json" and path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and "camera_path" in content:
                listed = [np.array(entry["camera_to_world"], dtype=np.float64) for entry in content["camera_path"]]
                return np.stack([matrix.reshape(4, 4) for matrix in listed]) @ OPENGL
        poses = read_poses(path).T_world_cam
    except (ModelInputError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--pipeline.targets.path {path}: {error}") from error
    if path.is_dir() or path.name != "transforms.json":
        # nerfstudio's parsers turn COLMAP's world: x y z -> x z -y, applied before the dataparser's transform.
        applied = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    else:
        applied = np.eye(4)
        stored = json.loads(path.read_text(encoding="utf-8")).get("applied_transform")
        if stored is not None:
            applied[:3] = np.array(stored, dtype=np.float64)[:3]
    T = np.eye(4)
    T[:3] = T_frame_data
    moved = np.stack([T @ applied @ pose for pose in poses.values()])
    moved[:, :3, 3] *= scale
    return moved


def target_poses(
    config: TargetsConfig,
    T_world_photo: np.ndarray,
    T_world_eval: np.ndarray,
    *,
    T_frame_data: np.ndarray,
    scale: float,
) -> np.ndarray:
    """Where novel views go, ``[n 4 4]``.

    Raises:
        InputError: There is nowhere to go.
    """
    if config.kind == "eval":
        if not len(T_world_eval):
            raise InputError("there are no evaluation photos to go to: give --pipeline.targets.kind between")
        return T_world_eval
    if config.kind == "file":
        assert config.path is not None
        return read_targets(config.path, T_frame_data, scale)
    return between_photos(T_world_photo, config.num_views, extent=extent_of(T_world_photo))


@dataclass(frozen=True)
class NovelPoses:
    """Where a round's views are, and which photos they are fixed with."""

    T_world_cam: np.ndarray
    """``[n 4 4]``, camera to world, OpenCV axes."""

    references: np.ndarray
    """``[n k]`` indices of the nearest photos, the nearest first."""


def next_poses(
    T_world_current: np.ndarray,
    T_world_target: np.ndarray,
    T_world_photo: np.ndarray,
    config: SteppingConfig,
    *,
    num_references: int,
) -> NovelPoses:
    """One step of novel views from where they are (the photos, at first) toward their targets."""
    extent = extent_of(T_world_photo)
    weight = {"extent": extent, "rotation_weight": config.rotation_weight}
    T_world_cam = stepped_poses(T_world_current, T_world_target, config.step_distance, **weight)
    distances = pose_distances(T_world_cam, T_world_photo, **weight)
    return NovelPoses(T_world_cam, np.argsort(distances, axis=1, kind="stable")[:, :num_references])


def cameras_at(T_world_cam: np.ndarray, photos: Cameras, reference: np.ndarray) -> Cameras:
    """Nerfstudio's pinhole cameras at poses, each with the intrinsics and size of its nearest photo, undistorted."""
    index = torch.as_tensor(reference, dtype=torch.int64)
    c2w = torch.as_tensor((T_world_cam @ OPENGL)[:, :3], dtype=torch.float32)
    photos = photos.to("cpu")
    return Cameras(
        camera_to_worlds=c2w,
        fx=photos.fx[index],
        fy=photos.fy[index],
        cx=photos.cx[index],
        cy=photos.cy[index],
        width=photos.width[index],
        height=photos.height[index],
        camera_type=CameraType.PERSPECTIVE,
    )
