"""What a COLMAP model says, in records of our own."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from splat_render.poses import matrix_from_quat_wxyz, rigid


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
        R_world_cam = matrix_from_quat_wxyz(quat / length).T
        return rigid(R_world_cam, -R_world_cam @ t)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelPoints:
    """The points of a model, in the order of their numbers."""

    p_world: Float64[np.ndarray, "n 3"]
    """Positions."""

    rgb_u8: UInt8[np.ndarray, "n 3"]
    """Colors."""

    image_ids: tuple[tuple[int, ...], ...]
    """For each point the photos that show it, each once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ColmapModel:
    """A model."""

    cameras: dict[int, ModelCamera]
    """By number."""

    images: list[ModelImage]
    """Those that are registered, sorted by name; names are unique."""

    points: ModelPoints
    """May be none."""
