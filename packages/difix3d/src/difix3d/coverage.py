"""Which views of a splat show what few captured views saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from splat_recon.geometry.cameras import Camera
from splat_recon.render.output import RenderOutput
from splat_recon.scene.downscale import limited_size

MAX_SIZE = 64
"""Longer side of the renders that are compared, in pixels."""

OPAQUE = 0.5
"""Opacity from which a pixel shows something."""

SAME_DEPTH = 0.1
"""Relative difference of depths up to which two views see the same place."""

MIN_OPAQUE = 0.5
"""Candidates that show something in less than this share of their pixels come last: they have nothing to fix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """A small render: where its camera is, how deep it sees, and the places that its pixels show."""

    camera: Camera
    depth: Float64[np.ndarray, "h w"]
    p_world: Float64[np.ndarray, "n 3"]
    num_pixels: int


def weakly_seen(
    candidates: Sequence[Camera],
    captured: Sequence[Camera],
    render: Callable[[Camera], RenderOutput],
    num_chosen: int,
    *,
    max_seen: int = 1,
) -> Int64[np.ndarray, " k"]:
    """The candidates that show most of what few views see, one after the other; a chosen one counts as a view then.

    A view sees a place if it lies in the image, and in front of nothing nearer that is opaque.

    Args:
        candidates: To choose from.
        captured: Cameras of the captured views.
        render: What the splat shows.
        num_chosen: How many are wanted.
        max_seen: A place is weakly seen if no more views than this see it.

    Returns:
        Indices of candidates, the best first.
    """
    views = [_seen(camera, render) for camera in captured]
    shown = [_seen(camera, render) for camera in candidates]
    counts = [sum((_sees(view, one.p_world).astype(np.int64) for view in views), _zeros(one)) for one in shown]
    chosen: list[int] = []
    for _ in range(min(num_chosen, len(shown))):
        scores = [
            -1.0 if index in chosen else _score(one, count, max_seen)
            for index, (one, count) in enumerate(zip(shown, counts, strict=True))
        ]
        chosen.append(int(np.argmax(scores)))
        best = shown[chosen[-1]]
        counts = [count + _sees(best, one.p_world) for one, count in zip(shown, counts, strict=True)]
    return np.array(chosen, dtype=np.int64)


def _zeros(one: _Seen) -> Int64[np.ndarray, " n"]:
    return np.zeros(len(one.p_world), dtype=np.int64)


def _score(one: _Seen, count: Int64[np.ndarray, " n"], max_seen: int) -> float:
    """Share of the pixels that are weakly seen; halved, and halved again, for views that are mostly empty."""
    opaque = len(count) / one.num_pixels
    weak = float((count <= max_seen).sum()) / one.num_pixels
    return weak if opaque >= MIN_OPAQUE else 0.25 * weak


def _seen(camera: Camera, render: Callable[[Camera], RenderOutput]) -> _Seen:
    small = camera.resized(*limited_size(camera.width, camera.height, MAX_SIZE))
    output = render(small)
    depth = output.depth[..., 0].double().cpu().numpy()
    opaque = (output.alpha[..., 0].double().cpu().numpy() > OPAQUE) & (depth > 0)
    depth = np.where(opaque, depth, np.inf)
    rows, columns = np.nonzero(opaque)
    z = depth[rows, columns]
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones_like(z)], axis=1)
    p_cam = (pixels @ np.linalg.inv(small.K).T) * z[:, None]
    p_world = p_cam @ small.T_world_cam[:3, :3].T + small.T_world_cam[:3, 3]
    return _Seen(camera=small, depth=depth, p_world=p_world, num_pixels=depth.size)


def _sees(view: _Seen, p_world: Float64[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    T_cam_world = view.camera.T_cam_world
    p_cam = p_world @ T_cam_world[:3, :3].T + T_cam_world[:3, 3]
    z = p_cam[:, 2]
    pixels = p_cam @ view.camera.K.T
    front = z > 1e-6
    columns, rows = (np.full(len(z), -1), np.full(len(z), -1))
    columns[front] = np.floor(pixels[front, 0] / z[front]).clip(-1, view.camera.width)
    rows[front] = np.floor(pixels[front, 1] / z[front]).clip(-1, view.camera.height)
    inside = front & (columns >= 0) & (columns < view.camera.width) & (rows >= 0) & (rows < view.camera.height)
    seen = np.zeros(len(z), dtype=bool)
    seen[inside] = z[inside] <= (1 + SAME_DEPTH) * view.depth[rows[inside], columns[inside]]
    return seen
