"""Do neighboring frames show the same thing? Matched points against known cameras (after TSED).

Corners of two frames are matched by their looks alone: the patches about them, normalized, must be each other's best
match, and clearly so. In frames of one rigid scene a match lies on the other's epipolar line, which the known cameras
give; the symmetric epipolar distance says by how many pixels it does not. A pair of frames is consistent if it has
enough matches and their median distance is small. The original measure matches SIFT features; the rest is as there.

Distances are in pixels of an image whose longer side has 256, whatever the frames have. On a generated scene of that
size the matches themselves are off by about 0.4 where nothing is wrong; frames that were each bent softly and at
random, by half a pixel, 1 and 2 pixels, are found at 0.8, 1.3 and 2.7. So a limit of 2 would let almost everything
pass, and the limit here is 1. A splat's own renders show one rigid thing and are as good as photos here: only fixes of
them can differ from frame to frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8

from splat_render.cameras import Camera

LONGER_SIDE = 256
"""Pixels along the longer side of the image in which distances are given."""

LIMITS = (0.5, 1.0, 2.0, 4.0)
"""Distances for which fractions are given beside the one that counts."""

MAX_CORNERS = 300
PATCH = 7
"""Half side of a patch, in pixels."""

MIN_CORRELATION = 0.8
MAX_RATIO = 0.9
"""How much further than the best the second-best match must be, in distance of patches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyConfig:
    """When a pair of frames counts as consistent."""

    max_distance: float = 1.0
    """Median symmetric epipolar distance up to which it does, in pixels of an image 256 wide or high."""

    min_matches: int = 10
    """Fewest matches with which it can."""

    def __post_init__(self) -> None:
        if self.max_distance <= 0 or self.min_matches < 1:
            raise ValueError(
                f"max_distance must be positive and min_matches at least 1, got {self.max_distance}, {self.min_matches}"
            )


def fundamental(a: Camera, b: Camera) -> Float64[np.ndarray, "3 3"]:
    """F with x_b^T F x_a = 0 for pixels of one world point."""
    T_b_a = b.T_cam_world @ a.T_world_cam
    x, y, z = T_b_a[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.inv(b.K).T @ cross @ T_b_a[:3, :3] @ np.linalg.inv(a.K)


def epipolar_distances(
    F: Float64[np.ndarray, "3 3"], p_a: Float64[np.ndarray, "n 2"], p_b: Float64[np.ndarray, "n 2"]
) -> Float64[np.ndarray, " n"]:
    """Symmetric epipolar distance of matches in pixels: the mean of both points' distances from the other's line."""
    x_a, x_b = (np.concatenate([p, np.ones((len(p), 1))], axis=1) for p in (p_a, p_b))
    lines_b, lines_a = x_a @ F.T, x_b @ F
    residual = np.abs((x_b * lines_b).sum(axis=1))
    norms = [np.maximum(np.linalg.norm(lines[:, :2], axis=1), 1e-12) for lines in (lines_a, lines_b)]
    return residual * (1 / norms[0] + 1 / norms[1]) / 2


def matches(
    a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h2 w2 3"]
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "n 2"]]:
    """Pixels (x, y) of two frames that look the same, centers at +0.5."""
    corners_a, patches_a = _described(a)
    corners_b, patches_b = _described(b)
    if len(corners_a) < 2 or len(corners_b) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    correlation = patches_a @ patches_b.T
    best = correlation.argmax(axis=1)
    mutual = correlation.argmax(axis=0)[best] == np.arange(len(best))
    two = np.sort(correlation, axis=1)[:, -2:]
    ratio = np.sqrt(np.maximum(1 - two[:, 1], 0)) / np.sqrt(np.maximum(1 - two[:, 0], 1e-12))
    good = mutual & (two[:, 1] >= MIN_CORRELATION) & (ratio <= MAX_RATIO)
    return corners_a[good] + 0.5, corners_b[best[good]] + 0.5


def _described(rgb_u8: np.ndarray) -> tuple[Float64[np.ndarray, "n 2"], Float[np.ndarray, "n d"]]:
    gray = rgb_u8.astype(np.float64).mean(axis=-1)
    dy, dx = np.gradient(gray)
    xx, yy, xy = (_blurred(product) for product in (dx * dx, dy * dy, dx * dy))
    score = xx * yy - xy**2 - 0.04 * (xx + yy) ** 2
    highest = np.max([np.roll(score, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    inside = np.zeros(score.shape, dtype=bool)
    inside[PATCH + 1 : -PATCH - 1, PATCH + 1 : -PATCH - 1] = True
    y, x = np.nonzero(inside & (score == highest) & (score > 1e-6 * max(score.max(), 1e-12)))
    order = np.argsort(-score[y, x], kind="stable")[:MAX_CORNERS]
    y, x = y[order], x[order]
    offsets = np.arange(-PATCH, PATCH + 1)
    patches = gray[(y[:, None, None] + offsets[:, None]), (x[:, None, None] + offsets)].reshape(len(y), -1)
    patches = patches - patches.mean(axis=1, keepdims=True) if len(y) else patches
    patches = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-9)
    return np.stack([x, y], axis=1).astype(np.float64), patches


def _blurred(plane: np.ndarray) -> np.ndarray:
    """Mean over 5 x 5 pixels."""
    padded = np.pad(plane, 2, mode="edge")
    rows = sum(padded[i : i + plane.shape[0]] for i in range(5))
    return sum(rows[:, j : j + plane.shape[1]] for j in range(5)) / 25  # type: ignore[index, return-value]


def consistency(
    frames: Sequence[UInt8[np.ndarray, "_h _w 3"]], cameras: Sequence[Camera], config: ConsistencyConfig | None = None
) -> dict[str, Any]:
    """How consistent neighboring frames are.

    Returns:
        ``consistent_fraction`` of the pairs, the same for other limits (``fractions``), the ``median_distance`` of all
        their matches (None without any), in pixels of an image 256 wide or high, and how many pairs and matches there
        were.

    Raises:
        ValueError: There are fewer than two frames, or not one camera per frame.
    """
    if len(frames) < 2 or len(frames) != len(cameras):
        raise ValueError(f"expected two frames or more and as many cameras, got {len(frames)} and {len(cameras)}")
    config = config or ConsistencyConfig()
    medians, found = [], []
    for (a, camera_a), (b, camera_b) in itertools.pairwise(zip(frames, cameras, strict=True)):
        p_a, p_b = matches(a, b)
        distances = epipolar_distances(fundamental(camera_a, camera_b), p_a, p_b)
        distances *= LONGER_SIDE / max(camera_a.width, camera_a.height)
        medians.append(float(np.median(distances)) if len(distances) >= config.min_matches else np.inf)
        found.append(distances)
    everything = np.concatenate(found)

    def fraction(limit: float) -> float:
        return sum(median <= limit for median in medians) / len(medians)

    return {
        "consistent_fraction": fraction(config.max_distance),
        "fractions": {f"{limit:g}": fraction(limit) for limit in LIMITS},
        "median_distance": float(np.median(everything)) if len(everything) else None,
        "num_pairs": len(frames) - 1,
        "num_matches": len(everything),
        "max_distance": config.max_distance,
        "min_matches": config.min_matches,
    }
