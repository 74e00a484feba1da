"""Where the photographer stands: orbits, a look around a room, a walk, a row of frontal views."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from splat_recon.scene.synthetic.config import Layout, SyntheticConfig
from splat_render.cameras import Camera


def make_cameras(rng: np.random.Generator, layout: Layout, config: SyntheticConfig) -> tuple[Camera, ...]:
    """Draw the cameras of one capture: one lens, `num_views` poses along a plausible hand-held path."""
    fov = np.radians(rng.uniform(48, 70))
    focal = 0.5 * config.width / np.tan(0.5 * fov)
    K = np.array([[focal, 0, 0.5 * config.width], [0, focal, 0.5 * config.height], [0, 0, 1.0]])
    path = {"table": _orbit, "garden": _orbit, "room": _look_around, "street": _walk, "shelf": _facing}[layout]
    eyes, targets = path(rng, config.num_views, layout)
    poses = [look_at(eye, target, roll=rng.normal(0, 0.02)) for eye, target in zip(eyes, targets, strict=True)]
    return tuple(Camera(T_world_cam=pose, K=K, width=config.width, height=config.height) for pose in poses)


def look_at(
    eye: Float64[np.ndarray, " 3"], target: Float64[np.ndarray, " 3"], *, roll: float = 0.0
) -> Float64[np.ndarray, "4 4"]:
    """T_world_cam of a camera (x right, y down, z forward) in a world with z up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    T_world_cam = np.eye(4)
    T_world_cam[:3, 0] = c * right + s * down
    T_world_cam[:3, 1] = c * down - s * right
    T_world_cam[:3, 2] = forward
    T_world_cam[:3, 3] = eye
    return T_world_cam


Path = tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]


def _orbit(rng: np.random.Generator, n: int, layout: Layout) -> Path:
    center = np.array([0, 0, 0.85 if layout == "table" else 0.6])
    arc = 2 * np.pi if rng.random() < 0.6 else rng.uniform(0.8, 2.5)
    angles = rng.uniform(0, 2 * np.pi) + arc * (np.arange(n) + rng.uniform(-0.2, 0.2, n)) / n
    distance = rng.uniform(1.1, 1.9) * (1 + rng.normal(0, 0.05, n)) * (1.0 if layout == "table" else 1.3)
    height = rng.uniform(0.2, 0.8) + rng.uniform(0, 0.25) * np.sin(angles * rng.integers(1, 4)) + rng.normal(0, 0.03, n)
    eyes = center + np.stack([distance * np.cos(angles), distance * np.sin(angles), height], axis=1)
    return eyes, center + rng.normal(0, 0.06, (n, 3))


def _look_around(rng: np.random.Generator, n: int, layout: Layout) -> Path:
    del layout
    start, arc = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 2.6)
    angles = start + arc * (np.arange(n) / n - 0.5)
    radius = rng.uniform(0.5, 1.4)
    eyes = np.stack([-radius * np.cos(angles), -radius * np.sin(angles), rng.uniform(0.9, 1.5) + 0 * angles], axis=1)
    eyes += rng.normal(0, 0.08, (n, 3))
    targets = np.stack([2 * np.cos(angles), 2 * np.sin(angles), rng.uniform(0.4, 0.9) + 0 * angles], axis=1)
    return eyes, targets + rng.normal(0, 0.12, (n, 3))


def _walk(rng: np.random.Generator, n: int, layout: Layout) -> Path:
    del layout
    y = np.linspace(-2.0, rng.uniform(1.5, 5.0), n)
    eyes = np.stack([0.35 * np.sin(y * rng.uniform(0.3, 1.0)), y, rng.uniform(0.9, 1.5) + 0 * y], axis=1)
    eyes += rng.normal(0, 0.05, (n, 3))
    ahead = np.stack([rng.uniform(-0.6, 0.6) + 0.3 * np.sin(y), y + 6.0, rng.uniform(0.8, 1.4) + 0 * y], axis=1)
    return eyes, ahead + rng.normal(0, 0.1, (n, 3))


def _facing(rng: np.random.Generator, n: int, layout: Layout) -> Path:
    del layout
    # Points of a low-discrepancy sequence fill the rectangle of camera centers evenly.
    u = (rng.random() + np.arange(n) * 0.7548777) % 1
    v = (rng.random() + np.arange(n) * 0.5698403) % 1
    wide, high = rng.uniform(0.6, 1.1), rng.uniform(0.3, 0.5)
    eyes = np.stack([wide * (2 * u - 1), rng.uniform(-0.2, 0.6) + 0.2 * v, 0.95 + high * (2 * v - 1)], axis=1)
    targets = np.array([0.0, 2.3, 0.85]) + 0.25 * np.stack([eyes[:, 0], 0 * u, eyes[:, 2] - 0.95], axis=1)
    return eyes, targets + rng.normal(0, 0.05, (n, 3))
