"""Photos without cameras that structure from motion finds them for: a corner of three textured walls, ray-cast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NUM_PHOTOS = 6
WORLD = np.random.default_rng(5).uniform(0, 255, (8, 64, 64))


def draw(T_cam_world, K, size):
    """Ray-cast a corner of three textured walls: much to match, exact geometry."""
    width, height = size
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1)
    R = T_cam_world[:3, :3].T
    center, directions = -R @ T_cam_world[:3, 3], rays @ R.T
    best, image = np.full(u.shape, np.inf), np.zeros((height, width))
    for axis in range(3):
        distance = -center[axis] / directions[..., axis]
        hit = center + distance[..., None] * directions
        a, b = np.delete(hit, axis, axis=-1)[..., 0], np.delete(hit, axis, axis=-1)[..., 1]
        nearer = (distance > 0) & (distance < best) & (a >= 0) & (b >= 0)
        gray = sum(
            WORLD[axis + 3 * k % 5, (a * f).astype(int) % 64, (b * f).astype(int) % 64] for k, f in ((0, 9), (1, 23))
        )
        image = np.where(nearer, gray / 2, image)
        best = np.where(nearer, distance, best)
    return np.repeat(image.round().astype(np.uint8)[..., None], 3, axis=2)


def corner_pose(index, count):
    from splat_recon.geometry.trajectories import looking_along

    angle = 0.45 + 0.7 * index / max(count - 1, 1)
    center = np.array([6 * np.cos(angle), 6 * np.sin(angle), 3.0 + 0.5 * np.sin(5 * angle)])
    return looking_along(np.array([0.8, 0.8, 0.8]) - center, np.array([0, 0, -1.0]), center)


def write_corner(folder: Path, count=NUM_PHOTOS, size=(320, 240)) -> list[np.ndarray]:
    folder.mkdir(parents=True)
    K = np.array([[300.0, 0, size[0] / 2], [0, 300, size[1] / 2], [0, 0, 1]])
    poses = [corner_pose(index, count) for index in range(count)]
    for index, pose in enumerate(poses):
        Image.fromarray(draw(np.linalg.inv(pose), K, size)).save(folder / f"photo_{index:02d}.png")
    return poses
