"""Surface points with the faults of structure from motion: uneven, noisy, some far off."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8

from splat_recon.scene.scene import Points
from splat_recon.scene.synthetic.config import SyntheticConfig
from splat_recon.scene.synthetic.raycast import cast_distances
from splat_recon.scene.synthetic.world import World
from splat_render.cameras import Camera

MAX_DISTANCE = 60.0
"""Surfaces beyond this many world units give no point."""

CANDIDATES_PER_POINT = 3
"""Pixels tried for each point wanted; those seen by one photo only are dropped."""


def sample_points(
    rng: np.random.Generator,
    world: World,
    cameras: tuple[Camera, ...],
    photos_u8: list[UInt8[np.ndarray, "h w 3"]],
    names: list[str],
    config: SyntheticConfig,
) -> Points:
    """Pick textured pixels, cast their rays, keep what a second photo sees too, add noise and outliers.

    A photo is said to see all points whose surface it shows.
    """
    total = config.num_points * CANDIDATES_PER_POINT
    per_view = np.bincount(rng.integers(len(cameras), size=total), minlength=len(cameras))
    surface, true, color = [], [], []
    for i, count in enumerate(per_view):
        pixels = _textured_pixels(rng, photos_u8[i], int(count))
        origins, dirs = _rays(cameras[i], pixels)
        distances = cast_distances(world, origins, dirs)
        seen = distances < MAX_DISTANCE
        p_world = (origins + dirs * distances[:, None])[seen]
        other = cameras[(i + 1 + int(rng.integers(max(1, len(cameras) // 6)))) % len(cameras)]
        shared = _sees(world, other, p_world)
        noise = rng.normal(0, config.point_noise, p_world.shape) * distances[seen][:, None]
        outlier = rng.random(len(p_world)) < config.outlier_fraction
        reach = np.where(outlier, rng.uniform(0.4, 1.6, len(p_world)), 1.0)
        moved = origins[seen] + (p_world - origins[seen]) * reach[:, None]
        surface.append((moved + noise)[shared])
        true.append(p_world[shared])
        columns, rows = pixels[seen][shared].T.astype(int)
        color.append(photos_u8[i][rows, columns])
    p_world, rgb_u8 = np.concatenate(surface), np.concatenate(color)
    chosen = np.sort(rng.permutation(len(p_world))[: config.num_points])
    p_true = np.concatenate(true)[chosen]
    seen_in = {name: np.flatnonzero(_sees(world, camera, p_true)) for name, camera in zip(names, cameras, strict=True)}
    return Points(p_world=p_world[chosen].astype(np.float32), rgb_u8=rgb_u8[chosen], seen_in=seen_in)


def _textured_pixels(
    rng: np.random.Generator, photo_u8: UInt8[np.ndarray, "h w 3"], count: int
) -> Float64[np.ndarray, "n 2"]:
    gray = photo_u8.astype(np.float64).mean(axis=2)
    slope = np.abs(np.gradient(gray, axis=0)) + np.abs(np.gradient(gray, axis=1))
    weight = (slope + 0.3).ravel()
    flat = rng.choice(len(weight), size=count, p=weight / weight.sum())
    return np.stack([flat % gray.shape[1] + 0.5, flat // gray.shape[1] + 0.5], axis=1)


def _rays(
    camera: Camera, pixels: Float64[np.ndarray, "n 2"]
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]:
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    dirs = homogeneous @ np.linalg.inv(camera.K).T @ camera.T_world_cam[:3, :3].T
    dirs /= np.linalg.norm(dirs, axis=1, keepdims=True)
    return np.broadcast_to(camera.T_world_cam[:3, 3], dirs.shape).copy(), dirs


def _sees(world: World, camera: Camera, p_world: Float64[np.ndarray, "n 3"]) -> np.ndarray:
    p_cam = p_world @ camera.T_cam_world[:3, :3].T + camera.T_cam_world[:3, 3]
    depth = np.maximum(p_cam[:, 2], 1e-6)
    x = camera.K[0, 0] * p_cam[:, 0] / depth + camera.K[0, 2]
    y = camera.K[1, 1] * p_cam[:, 1] / depth + camera.K[1, 2]
    inside = (p_cam[:, 2] > 1e-3) & (x > 0) & (x < camera.width) & (y > 0) & (y < camera.height)
    eye = camera.T_world_cam[:3, 3]
    offset = p_world - eye
    distance = np.linalg.norm(offset, axis=1)
    dirs = offset / np.maximum(distance, 1e-9)[:, None]
    reached = cast_distances(world, np.broadcast_to(eye, dirs.shape).copy(), dirs)
    return inside & (reached > 0.99 * distance)
