"""From a seed to a scene: world, cameras, photos, points."""

from __future__ import annotations

import numpy as np

from splat_recon.scene.scene import Points, Scene, View
from splat_recon.scene.synthetic.cameras import make_cameras
from splat_recon.scene.synthetic.config import LAYOUTS, SyntheticConfig
from splat_recon.scene.synthetic.layouts import make_world
from splat_recon.scene.synthetic.points import sample_points
from splat_recon.scene.synthetic.raycast import cast_image


def generate_scene(seed: int, config: SyntheticConfig | None = None) -> Scene:
    """Generate a scene: photos of random solids and the points that structure from motion would find.

    The same seed and config give the same scene. The world frame has z up; `T_scene_colmap` is the identity.

    Args:
        seed: Draws geometry, textures, light and cameras, and the layout where config.layout is "any"; at least 0.
        config: Sizes, number of photos, noise; SyntheticConfig() for None.
    """
    config = SyntheticConfig() if config is None else config
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    rng = np.random.default_rng(seed)
    drawn = LAYOUTS[int(rng.integers(len(LAYOUTS)))]
    layout = drawn if config.layout == "any" else config.layout
    world = make_world(rng, layout, config.dark_share)
    cameras = make_cameras(rng, layout, config)
    photos_u8 = []
    for camera in cameras:
        photo = cast_image(world, camera, config.samples_per_axis) * np.exp(rng.normal(0, config.exposure_spread))
        photo = photo + rng.normal(0, 1, photo.shape) * config.sensor_noise
        photos_u8.append((np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8))
    points: Points = sample_points(rng, world, cameras, photos_u8, config)
    views = tuple(
        View(name=f"{i:04d}.png", camera=camera, rgb_u8=photo)
        for i, (camera, photo) in enumerate(zip(cameras, photos_u8, strict=True))
    )
    return Scene(views=views, points=points, T_scene_colmap=np.eye(4), name=f"generated_{seed:05d}_{layout}")
