"""Folders of photos or renders of one object with their cameras, as evaluations read them.

A folder holds `transforms.json` in the form of NeRF's synthetic scenes: `camera_angle_x` in radians, and `frames` with
`file_path` (with or without an ending) and `transform_matrix`, a pose with OpenGL's axes in a world with z up, or with
`"up": "y"` in one with y up. The cameras look at the object's middle, which is the origin.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffsplat.cameras import RADIUS, flipped_axes
from diffsplat.errors import InputError
from diffsplat.images import as_condition, opened_image

VIEWS_FILE = "transforms.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedViews:
    """Views of an object in the world that it is generated in: view 0 at azimuth 0 and the canonical distance."""

    rgb: Float[Tensor, "v 3 h w"]
    """Over white, in [0, 1]."""
    T_world_cam: Float[Tensor, "v 4 4"]
    """OpenCV cameras."""
    fxfycxcy: Float[Tensor, "v 4"]
    """Intrinsics as shares of the image."""
    elevation_deg: float
    """Of view 0, over the horizon."""


def read_posed_views(folder: Path, size: int) -> PosedViews:
    """Read an object's views.

    Args:
        folder: With `transforms.json` and square images.
        size: Side that the images are brought to.
    """
    path = folder / VIEWS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        angle = float(found["camera_angle_x"])
        names = [str(frame["file_path"]) for frame in found["frames"]]
        poses = np.array([frame["transform_matrix"] for frame in found["frames"]], np.float64)
        up = str(found.get("up", "z"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no cameras of views: {error}") from error
    if len(names) < 2 or poses.shape != (len(names), 4, 4) or up not in ("y", "z") or not 0 < angle < math.pi:
        raise InputError(f"{path} must hold camera_angle_x and at least two frames with 4 x 4 poses")
    if up == "z":
        poses = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]]) @ poses
    place = poses[0, :3, 3]
    distance = float(np.linalg.norm(place))
    if distance < 1e-6:
        raise InputError(f"the first camera of {path} is at the origin, which must be the object's middle")
    azimuth = math.atan2(place[0], place[2])
    turn = np.eye(4)
    turn[0, 0] = turn[2, 2] = math.cos(azimuth)
    turn[0, 2], turn[2, 0] = -math.sin(azimuth), math.sin(azimuth)
    poses = turn @ poses
    poses[:, :3, 3] *= RADIUS / distance
    files = [_image_file(folder, name) for name in names]
    images = [as_condition(opened_image(file), size, name=str(file)) for file in files]
    focal = 0.5 / math.tan(angle / 2)
    return PosedViews(
        rgb=torch.cat(images),
        T_world_cam=flipped_axes(torch.from_numpy(poses).float()),
        fxfycxcy=torch.tensor([focal, focal, 0.5, 0.5]).repeat(len(names), 1),
        elevation_deg=math.degrees(math.asin(max(-1.0, min(1.0, float(place[1]) / distance)))),
    )


def _image_file(folder: Path, name: str) -> Path:
    for ending in ("", ".png", ".jpg", ".webp"):
        path = folder / (name + ending)
        if path.is_file():
            return path
    raise InputError(f"{folder / name} is not there: {VIEWS_FILE} names it")


def object_folders(root: Path) -> list[Path]:
    """Every folder right below one that holds `transforms.json`, or the folder itself."""
    if (root / VIEWS_FILE).is_file():
        return [root]
    found = sorted(path.parent for path in root.glob(f"*/{VIEWS_FILE}")) if root.is_dir() else []
    if not found:
        raise InputError(f"{root} holds no folders with {VIEWS_FILE}, one per object")
    return found
