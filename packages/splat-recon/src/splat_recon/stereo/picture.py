"""A picture of what stereo found: photo, depth and confidence beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, UInt8

from report_pages import beside, labeled, spread, stacked
from splat_recon.pages.pictures import depth_colors
from splat_recon.stereo.patch_match import DepthMap

MANY_AGREEING = 3
"""So many agreeing photos make a pixel as sure as can be."""

MAX_PHOTOS = 6
"""Photos that the picture shows, evenly spread."""


def confidence(depth_map: DepthMap) -> Float64[np.ndarray, "h w"]:
    """How sure a pixel's depth is, in [0, 1]: correlation of its patch times how many photos agree; 0 if not valid."""
    agreement = np.minimum(depth_map.num_agreeing, MANY_AGREEING) / MANY_AGREEING
    return depth_map.valid * agreement * np.clip(1 - depth_map.cost, 0, 1)


def stereo_picture(maps: Sequence[DepthMap]) -> UInt8[np.ndarray, "h w 3"]:
    """A row per photo: the photo, its believed depths from near, bright, to far, dark, and their confidence.

    Raises:
        ValueError: There is no depth map.
    """
    if not maps:
        raise ValueError("expected at least one depth map")
    rows = []
    for index in spread(len(maps), MAX_PHOTOS):
        one = maps[index]
        depth = 1 / np.maximum(one.inverse_depth.astype(np.float64), 1e-12)
        # All depths give the range, so that a photo with nothing believed has one too.
        near, far = np.quantile(depth[one.valid] if one.valid.any() else depth, (0.02, 0.98))
        depths = depth_colors(depth, one.valid.astype(np.float64), float(near), float(max(far, near * 1.01)))
        sure = np.repeat((confidence(one) * 255).round().astype(np.uint8)[..., None], 3, axis=2)
        label = f"{one.valid_fraction:.0%} believed"
        rows.append(beside([labeled(one.rgb_u8, one.name), labeled(depths, label), sure]))
    return stacked(rows)
