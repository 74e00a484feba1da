"""The form of a run's `cameras.json`: cameras by name in the scene's frame, and how that frame lies in COLMAP's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from splat_recon.io.json_files import num_pixels
from splat_render.cameras import Camera
from splat_render.poses import decompose_similarity


def to_content(cameras: Mapping[str, Camera], T_scene_colmap: Float64[np.ndarray, "4 4"]) -> dict[str, Any]:
    """What the file holds."""
    entries = {
        name: {
            "T_world_cam": camera.T_world_cam.tolist(),
            "K": camera.K.tolist(),
            "width": camera.width,
            "height": camera.height,
        }
        for name, camera in cameras.items()
    }
    return {"T_scene_colmap": T_scene_colmap.tolist(), "cameras": entries}


def from_content(content: Mapping[str, Any]) -> tuple[dict[str, Camera], Float64[np.ndarray, "4 4"]]:
    """The cameras by name, and the similarity from COLMAP's frame to theirs.

    Raises:
        ValueError: The content is not of this form.
    """
    try:
        cameras = {
            name: Camera(
                T_world_cam=np.array(entry["T_world_cam"], dtype=np.float64),
                K=np.array(entry["K"], dtype=np.float64),
                width=num_pixels(entry["width"], f'camera {name}: "width"'),
                height=num_pixels(entry["height"], f'camera {name}: "height"'),
            )
            for name, entry in content["cameras"].items()
        }
        T_scene_colmap = np.array(content["T_scene_colmap"], dtype=np.float64)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"these are not the cameras of a run: {error!r}") from error
    if T_scene_colmap.shape != (4, 4) or not np.isfinite(T_scene_colmap).all():
        raise ValueError(f"T_scene_colmap must be a 4x4 matrix of finite numbers, got {T_scene_colmap.shape}")
    decompose_similarity(T_scene_colmap)
    not_finite = [name for name, camera in cameras.items() if not np.isfinite(camera.K).all()]
    if not_finite:
        raise ValueError(f"the K of camera {not_finite[0]} is not finite")
    return cameras, T_scene_colmap
