"""Which depths of a stereo matching are believed: few of them wrong is worth more than many.

A pixel is believed where other photos agree with its depth, its patch correlates, there is texture in both directions,
it is not nearer than what the photo's own points allow, it belongs to a component of some size, and it does not hide
what other photos are sure of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float64
from PIL import Image
from scipy.ndimage import uniform_filter

from splat_recon.scene.scene import Points, View
from splat_recon.stereo.config import StereoConfig
from splat_recon.stereo.kernels import without_small_components
from splat_recon.stereo.patch_match import MIN_POINTS, DepthMap, relation

WINDOW = 7
"""Side of the window in which texture is measured, in pixels."""

MAX_STEP = 0.03
"""Neighbors whose inverse depths differ by less than this fraction belong to one component."""

SURE_AGREEING = 2
"""Another photo is sure of a pixel with which so many others agree."""

NEAR_QUANTILE = 0.99
"""The nearest points of a photo are those at this quantile of inverse depth."""

COMPONENT_SIZE = 240
"""Longer side of the photo in pixels that `min_component` is meant for."""


def with_valid_depths(
    maps: Sequence[DepthMap], photos: Sequence[View], points: Points, config: StereoConfig
) -> tuple[DepthMap, ...]:
    """The depth maps with those pixels marked that are believed.

    Args:
        photos: The photos that it was matched in, in the same order; what their masks leave out is not believed.
        points: Points of the scene; those that a photo is known to see say how near its pixels may be.
    """
    left = [_left_by_mask(depth_map, photo) for depth_map, photo in zip(maps, photos, strict=True)]
    first = [_textured_and_agreeing(depth_map, mask, config) for depth_map, mask in zip(maps, left, strict=True)]
    sure = [mask & (depth_map.num_agreeing >= SURE_AGREEING) for depth_map, mask in zip(maps, first, strict=True)]
    believed = []
    for own, depth_map in enumerate(maps):
        mask = first[own] & ~_hides(maps, own, first[own], sure, config)
        mask &= corner_strength(depth_map.gray) > config.min_corner
        limit = _nearest_point(depth_map, points)
        if limit is not None:
            mask &= depth_map.inverse_depth < config.near_margin * limit
        believed.append(_without_specks(depth_map, mask, config))
    fractions = np.array([mask.sum() / max(1, pixels.sum()) for mask, pixels in zip(believed, left, strict=True)])
    enough = (fractions >= config.min_fraction) & (fractions.mean() >= config.min_fraction)
    return tuple(
        replace(depth_map, valid=mask if give else np.zeros_like(mask))
        for depth_map, mask, give in zip(maps, believed, enough, strict=True)
    )


def _left_by_mask(depth_map: DepthMap, photo: View) -> Bool[np.ndarray, "h w"]:
    """The pixels that the photo's mask leaves, at the depth map's size; all without a mask."""
    size = (depth_map.camera.width, depth_map.camera.height)
    if photo.mask is None:
        return np.ones(size[::-1], np.bool_)
    return np.array(Image.fromarray(photo.mask).resize(size, Image.Resampling.NEAREST))


def _textured_and_agreeing(
    depth_map: DepthMap, left: Bool[np.ndarray, "h w"], config: StereoConfig
) -> Bool[np.ndarray, "h w"]:
    mask = left & (depth_map.num_agreeing >= 1) & (depth_map.cost < config.max_cost)
    mask &= local_deviation(depth_map.gray) > config.min_deviation
    return _without_specks(depth_map, mask, config)


def _without_specks(
    depth_map: DepthMap, mask: Bool[np.ndarray, "h w"], config: StereoConfig
) -> Bool[np.ndarray, "h w"]:
    scale = max(depth_map.camera.width, depth_map.camera.height) / COMPONENT_SIZE
    return without_small_components(
        depth_map.inverse_depth, mask, MAX_STEP, max(1, round(config.min_component * scale**2))
    )


def _hides(
    maps: Sequence[DepthMap],
    own: int,
    mask: Bool[np.ndarray, "h w"],
    sure: Sequence[Bool[np.ndarray, "_h _w"]],
    config: StereoConfig,
) -> Bool[np.ndarray, "h w"]:
    """Pixels of the mask that stand in front of what another photo is sure to see."""
    y, x = np.nonzero(mask)
    inverse = maps[own].inverse_depth[y, x].astype(np.float64)
    pixels = np.stack([x + 0.5, y + 0.5, np.ones_like(inverse)], axis=1)
    hides = np.zeros(len(y), np.bool_)
    for other, depth_map in enumerate(maps):
        if other == own:
            continue
        A, b = relation(maps[own].camera, depth_map.camera)
        there = pixels @ A.T + b * inverse[:, None]
        in_front = there[:, 2] > 1e-6
        uv = np.floor(there[:, :2] / np.where(in_front, there[:, 2], 1)[:, None])
        inside = in_front & (uv >= 0).all(axis=1) & (uv < (depth_map.camera.width, depth_map.camera.height)).all(axis=1)
        index = np.flatnonzero(inside)
        column, row = uv[index].astype(np.int64).T
        nearer = there[index, 2] / inverse[index] * depth_map.inverse_depth[row, column] < 1 - config.front_margin
        hides[index] |= sure[other][row, column] & nearer
    result = np.zeros_like(mask)
    result[y[hides], x[hides]] = True
    return result


def _nearest_point(depth_map: DepthMap, points: Points) -> float | None:
    """Inverse depth of the nearest points that structure from motion matched in a photo; None where that is unknown."""
    seen = points.seen_in.get(depth_map.name)
    if seen is None:
        return None
    T = depth_map.camera.T_cam_world
    depth = points.p_world[seen].astype(np.float64) @ T[2, :3] + T[2, 3]
    depth = depth[depth > 0]
    return float(np.quantile(1 / depth, NEAR_QUANTILE)) if len(depth) >= MIN_POINTS else None


def local_deviation(gray: Float[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Standard deviation of the gray values in a window around each pixel."""
    values = gray.astype(np.float64)
    mean = uniform_filter(values, WINDOW, mode="mirror")
    return np.sqrt(np.maximum(uniform_filter(values * values, WINDOW, mode="mirror") - mean * mean, 0))


def corner_strength(gray: Float[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Root of the smaller eigenvalue of the gradients' second moments in a window: texture in both directions."""
    gy, gx = np.gradient(gray.astype(np.float64))
    xx, xy, yy = (uniform_filter(product, WINDOW, mode="mirror") for product in (gx * gx, gx * gy, gy * gy))
    smaller = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    return np.sqrt(np.maximum(smaller, 0))
