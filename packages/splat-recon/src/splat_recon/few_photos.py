"""What suits a training from few photos: regularization, the color behind everything, and the nearest depth."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from splat_recon.config import FEW_PHOTOS, TrainConfig, regularized_for
from splat_recon.scene.scene import Points, View
from splat_render.poses import transform_points

BACKDROP_FRACTION = 0.25
"""From this fraction of pixels of exactly one color on, the photos show things before a backdrop of that color."""

PIXEL_STEP = 4
"""Every so many-th row and column of a photo is looked at."""

NEAREST_POINTS = 0.02
"""The nearest points of a photo are at this quantile of their depths: single ones are wrong."""

NEAR_FRACTION = 0.7
"""Nothing is drawn nearer than this fraction of the depth of the points that are nearest to any photo. From six photos
of five real scenes 0.5 to 0.8 differ little (docs/benchmarks.md)."""

MIN_POINTS = 10
"""A photo with fewer points says nothing about what is near."""


def photo_background(photos: Sequence[View]) -> tuple[float, float, float]:
    """The color that photos suggest for what no Gaussian covers: their mean, or that of their backdrop.

    From six photos of five real scenes, the mean in place of black gained 0.5 dB on test photos in the mean, 1.9 dB
    on one scene and lost 0.2 dB on another, within the spread between seeds. Pixels that masks leave out do not count.

    Returns:
        sRGB in [0, 1], rounded to bytes.
    """
    pixels = []
    for view in photos:
        rgb_u8 = view.rgb_u8[::PIXEL_STEP, ::PIXEL_STEP]
        kept = None if view.mask is None else view.mask[::PIXEL_STEP, ::PIXEL_STEP]
        pixels.append(rgb_u8.reshape(-1, 3) if kept is None or not kept.any() else rgb_u8[kept])
    rgb_u8 = np.concatenate(pixels)
    colors, counts = np.unique(rgb_u8, axis=0, return_counts=True)
    color = colors[counts.argmax()] if counts.max() >= BACKDROP_FRACTION * len(rgb_u8) else rgb_u8.mean(axis=0).round()
    red, green, blue = (float(value) / 255 for value in color)
    return red, green, blue


def near_plane(photos: Sequence[View], points: Points) -> float | None:
    """The depth before which nothing should be drawn, from the points that structure from motion matched in photos.

    Few photos leave floaters anywhere that they do not look through, and from new places they hide the view. What the
    photos show is all farther away.

    Returns:
        A depth in world units; None for more than `FEW_PHOTOS`, and where no photo's points are known.
    """
    if len(photos) > FEW_PHOTOS:
        return None
    nearest = []
    for view in photos:
        idx = points.seen_in.get(view.name, ())
        if len(idx) < MIN_POINTS:
            continue
        depths = transform_points(view.camera.T_cam_world, points.p_world[idx])[:, 2]
        depths = depths[depths > 0]
        if len(depths) >= MIN_POINTS:
            nearest.append(float(np.quantile(depths, NEAREST_POINTS)))
    return NEAR_FRACTION * min(nearest) if nearest else None


def config_for_photos(
    photos: Sequence[View],
    config: TrainConfig,
    *,
    points: Points | None = None,
    background: tuple[float, float, float] | None = None,
) -> TrainConfig:
    """A config with what suits the training photos: `regularized_for`, and for few photos background and near plane.

    Args:
        config: What it regularizes already stays as it is.
        points: The scene's points, which say how near things are (`near_plane`); None: that of the config stays.
        background: sRGB in [0, 1], for any number of photos; None: `photo_background` of up to `FEW_PHOTOS`, else that
            of the config.
    """
    config = regularized_for(len(photos), config)
    if background is None and len(photos) <= FEW_PHOTOS:
        background = photo_background(photos)
    if background is not None:
        config = replace(config, background=background)
    near = None if points is None else near_plane(photos, points)
    return config if near is None else replace(config, render_near=near)
