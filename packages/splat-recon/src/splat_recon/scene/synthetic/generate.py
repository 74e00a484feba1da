"""From a seed to a scene: world, cameras, photos, points."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

from splat_recon.scene.scene import Points, Scene, View
from splat_recon.scene.synthetic.cameras import make_cameras
from splat_recon.scene.synthetic.config import LAYOUTS, Layout, SyntheticConfig
from splat_recon.scene.synthetic.layouts import make_world
from splat_recon.scene.synthetic.panoramas import read_panoramas
from splat_recon.scene.synthetic.points import sample_points
from splat_recon.scene.synthetic.raycast import MISS, cast_distances, cast_image
from splat_recon.scene.synthetic.world import World
from splat_render.cameras import Camera


def generate_scene(seed: int, config: SyntheticConfig | None = None) -> Scene:
    """Generate a scene: photos of random solids and the points that structure from motion would find.

    The same seed and config give the same scene. The world frame has z up; `T_scene_colmap` is the identity.

    Args:
        seed: Draws geometry, textures, light and cameras, and the layout where config.layout is "any"; at least 0.
        config: Sizes, number of photos, noise; SyntheticConfig() for None.
    """
    config = SyntheticConfig() if config is None else config
    rng, layout, world = _world(seed, config)
    cameras = make_cameras(rng, layout, config)
    photos_u8 = []
    for camera in cameras:
        photo = cast_image(world, camera, config.samples_per_axis) * np.exp(rng.normal(0, config.exposure_spread))
        photo = photo + rng.normal(0, 1, photo.shape) * config.sensor_noise
        photos_u8.append((np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8))
    names = [f"{i:04d}.png" for i in range(len(cameras))]
    points: Points = sample_points(rng, world, cameras, photos_u8, names, config)
    views = tuple(
        View(name=name, camera=camera, rgb_u8=photo)
        for name, camera, photo in zip(names, cameras, photos_u8, strict=True)
    )
    return Scene(views=views, points=points, T_scene_colmap=np.eye(4), name=f"generated_{seed:05d}_{layout}")


def true_photo(seed: int, config: SyntheticConfig, camera: Camera) -> Float32[np.ndarray, "h w 3"]:
    """What a camera sees of a generated scene, sRGB in [0, 1], without noise and exposure.

    Args:
        camera: In the frame of the generated scene, before any normalization.
    """
    return cast_image(_world(seed, config)[2], camera, config.samples_per_axis)


def true_depth(seed: int, config: SyntheticConfig, camera: Camera) -> Float64[np.ndarray, "h w"]:
    """Depth along z of a generated scene at the pixels' centers; infinite where there is only sky.

    Args:
        camera: In the frame of the generated scene, before any normalization.
    """
    y, x = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([x.ravel() + 0.5, y.ravel() + 0.5, np.ones(x.size)], axis=1)
    dirs_cam = pixels @ np.linalg.inv(camera.K).T
    lengths = np.linalg.norm(dirs_cam, axis=1)
    dirs_world = (dirs_cam / lengths[:, None]) @ camera.T_world_cam[:3, :3].T
    origins_world = np.repeat(camera.center_world[None], len(dirs_world), axis=0)
    distances = cast_distances(_world(seed, config)[2], origins_world, dirs_world)
    depth = np.where(distances < MISS, distances / lengths, np.inf)
    return depth.reshape(camera.height, camera.width)


def _world(seed: int, config: SyntheticConfig) -> tuple[np.random.Generator, Layout, World]:
    """The generator as it stands after the world was drawn, the layout and the world."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    rng = np.random.default_rng(seed)
    drawn = LAYOUTS[int(rng.integers(len(LAYOUTS)))]
    layout = drawn if config.layout == "any" else config.layout
    panoramas = () if config.panoramas is None else read_panoramas(config.panoramas)
    return rng, layout, make_world(rng, layout, config.dark_fraction, panoramas)
