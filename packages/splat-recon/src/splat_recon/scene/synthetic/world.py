"""The solids, textures and light of one generated scene, as flat arrays for the ray-caster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

CUBE, SPHERE, CYLINDER, CONE, TORUS, ROOM, GROUND = range(7)
"""Kinds of solid, each within [-1, 1]^3 of its own frame; ROOM is a cube seen from inside, GROUND the plane z = 0."""

NO_PANORAMA = np.zeros((0, 0, 3), np.float32)
"""In place of a panorama where there is none."""

TORUS_TUBE = 0.32
"""Radius of the torus's tube in its own frame; its outer radius is 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Everything that a ray can meet. World frame: z up, units of about one meter."""

    kinds: Int64[np.ndarray, " n"]
    T_solid_world: Float64[np.ndarray, "n 3 4"]
    half_sizes: Float64[np.ndarray, "n 3"]
    """Half extents in the world, so that textures keep their size on every solid."""
    bounds: Float64[np.ndarray, "n 4"]
    """Bounding sphere: center and radius, in the world."""
    texture_idx: Int64[np.ndarray, " n"]
    texture_sizes: Float64[np.ndarray, " n"]
    """World size of one texture tile."""
    gloss: Float64[np.ndarray, " n"]
    """Strength of the highlight, in [0, 1]."""
    textures: Float32[np.ndarray, "m t t 3"]
    dir_sun: Float64[np.ndarray, " 3"]
    """Unit direction toward the sun (or the lamp, for light_distance > 0)."""
    light: Float64[np.ndarray, " 5"]
    """Sun's linear strength, its distance (0: infinitely far), softness, ambient from above, ambient from below."""
    light_rgb: Float64[np.ndarray, " 3"]
    sky_rgb: Float64[np.ndarray, "2 3"]
    """Linear color at the horizon and at the zenith."""
    surroundings: Float32[np.ndarray, "h w 3"]
    """Linear panorama in place of the sky and on the walls of a room, its first row up; `NO_PANORAMA` for none."""


class WorldBuilder:
    """Collects solids; `build` freezes them."""

    def __init__(self, rng: np.random.Generator, num_textures: int) -> None:
        self.rng = rng
        self.num_textures = num_textures
        self._kinds: list[int] = []
        self._T_world_solid: list[np.ndarray] = []
        self._half_sizes: list[np.ndarray] = []
        self._texture_idx: list[int] = []
        self._texture_sizes: list[float] = []
        self._gloss: list[float] = []

    def texture(self) -> int:
        """Draw a texture's index."""
        return int(self.rng.integers(self.num_textures))

    def add(
        self,
        kind: int,
        center: tuple[float, float, float],
        half_size: tuple[float, float, float],
        *,
        yaw: float = 0.0,
        tilt: float = 0.0,
        texture: int | None = None,
        texture_size: float = 1.0,
        gloss: float | None = None,
    ) -> None:
        """Place a solid: turned by `tilt` about x, then by `yaw` about z (radians), then moved to `center`."""
        cy, sy, ct, st = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
        R_yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]])
        R_tilt = np.array([[1.0, 0, 0], [0, ct, -st], [0, st, ct]])
        T_world_solid = np.eye(4)
        T_world_solid[:3, :3] = R_yaw @ R_tilt @ np.diag(half_size)
        T_world_solid[:3, 3] = center
        self._kinds.append(kind)
        self._T_world_solid.append(T_world_solid)
        self._half_sizes.append(np.asarray(half_size, dtype=np.float64))
        self._texture_idx.append(self.texture() if texture is None else texture)
        self._texture_sizes.append(texture_size)
        glossy = self.rng.random() < 0.3
        self._gloss.append((self.rng.uniform(0.05, 0.4) if glossy else 0.0) if gloss is None else gloss)

    def build(
        self,
        textures: Float32[np.ndarray, "m t t 3"],
        *,
        dir_sun: Float64[np.ndarray, " 3"],
        light: tuple[float, float, float, float, float],
        light_rgb: Float64[np.ndarray, " 3"],
        sky_rgb: Float64[np.ndarray, "2 3"],
        surroundings: Float32[np.ndarray, "h w 3"] = NO_PANORAMA,
    ) -> World:
        """Freeze what was added."""
        T_world_solid = np.stack(self._T_world_solid)
        half_sizes = np.stack(self._half_sizes)
        bounds = np.concatenate([T_world_solid[:, :3, 3], np.linalg.norm(half_sizes, axis=1)[:, None]], axis=1)
        kinds = np.asarray(self._kinds, dtype=np.int64)
        bounds[(kinds == ROOM) | (kinds == GROUND), 3] = 1e6
        return World(
            kinds=kinds,
            T_solid_world=np.ascontiguousarray(np.linalg.inv(T_world_solid)[:, :3]),
            half_sizes=half_sizes,
            bounds=bounds,
            texture_idx=np.asarray(self._texture_idx, dtype=np.int64),
            texture_sizes=np.asarray(self._texture_sizes, dtype=np.float64),
            gloss=np.asarray(self._gloss, dtype=np.float64),
            textures=textures,
            dir_sun=dir_sun / np.linalg.norm(dir_sun),
            light=np.asarray(light, dtype=np.float64),
            light_rgb=light_rgb,
            sky_rgb=sky_rgb,
            surroundings=np.ascontiguousarray(surroundings),
        )
