"""What a COLMAP model says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from colmap_models.camera_models import NUM_PARAMS
from colmap_models.errors import InputError
from colmap_models.names import shown

MAX_SHOWN = 40
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True, kw_only=True)
class ModelCamera:
    """A camera of a model."""

    model: str
    """COLMAP's name of the lens."""

    width: int
    """In pixels, as the file has it."""

    height: int
    """In pixels, as the file has it."""

    params: tuple[float, ...]
    """In COLMAP's order."""


@dataclass(frozen=True, kw_only=True)
class ModelImage:
    """A registered photo of a model."""

    image_id: int
    """Its number."""

    name: str
    """As the file has it; bytes that are no UTF-8 are surrogates, as in `os.fsdecode`."""

    camera_id: int
    """Its camera's number."""

    quat_wxyz: tuple[float, float, float, float]
    """World to camera, of any length."""

    translation: tuple[float, float, float]
    """World to camera."""

    @property
    def T_world_cam(self) -> Float64[np.ndarray, "4 4"] | None:
        """Camera to world; None where the numbers are no pose."""
        quat, t = np.array(self.quat_wxyz), np.array(self.translation)
        length = np.linalg.norm(quat)
        if not (np.isfinite(t).all() and np.isfinite(length) and length > 0):
            return None
        unit = quat / length
        w, x, y, z = unit / np.linalg.norm(unit)  # Once is by rounding not of length one.
        R_cam_world = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        T_world_cam = np.eye(4)
        T_world_cam[:3, :3] = R_cam_world.T
        T_world_cam[:3, 3] = -R_cam_world.T @ t
        return T_world_cam


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelPoints:
    """The points of a model, in the order of their numbers."""

    p_world: Float64[np.ndarray, "n 3"]
    """Positions."""

    rgb_u8: UInt8[np.ndarray, "n 3"]
    """Colors."""

    image_ids: tuple[tuple[int, ...], ...]
    """For each point the photos that show it, each once."""

    @classmethod
    def of(cls, points: Iterable[tuple[int, tuple[float, ...], tuple[int, ...], Iterable[int]]]) -> ModelPoints:
        """From the number, position, color and photos of each, in any order."""
        found = sorted(points, key=lambda point: point[0])
        return cls(
            p_world=np.array([xyz for _, xyz, _, _ in found], dtype=np.float64).reshape(-1, 3),
            rgb_u8=np.array([rgb for _, _, rgb, _ in found], dtype=np.uint8).reshape(-1, 3),
            image_ids=tuple(tuple(dict.fromkeys(image_ids)) for _, _, _, image_ids in found),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ColmapModel:
    """A model."""

    cameras: dict[int, ModelCamera]
    """By number."""

    images: list[ModelImage]
    """Those that are registered, sorted by name; names are unique."""

    points: ModelPoints
    """May be none."""

    def camera_of(self, image: ModelImage) -> ModelCamera:
        """The camera of a photo, of a known model with as many parameters as that has; the rest is not checked.

        Raises:
            InputError: The model has none of this number, or it is no camera.
        """
        camera = self.cameras.get(image.camera_id)
        where = f"camera {image.camera_id}"
        if camera is None:
            raise InputError(f"{where}, which photo {shown(image.name)} has, is not in the model")
        expected = NUM_PARAMS.get(camera.model)
        if expected is None:
            raise InputError(f"{where}: the model {camera.model[:MAX_SHOWN]} is none of COLMAP's")
        if len(camera.params) != expected:
            raise InputError(f"{where}: the model {camera.model} is of {expected} parameters, not {len(camera.params)}")
        return camera
