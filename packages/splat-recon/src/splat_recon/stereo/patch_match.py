"""PatchMatch stereo over few photos: a plane per pixel, matched with the other photos, coarse to fine.

Each pixel holds the plane that it looks at, as inverse depth and its gradient. Sweeps over a photo hand good planes on
from neighbor to neighbor and try random changes; a plane is as good as the slanted patch around the pixel correlates
with the photos in which it fits best (Bleyer et al. 2011; Schoenberger et al. 2016). In geometric rounds a pixel also
pays for disagreeing with the depths that the other photos had at the end of the round before.

The photos of a round do not depend on each other, so they are swept on threads, with the same result on any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, UInt8, UInt64
from PIL import Image

from splat_recon.scene.scene import View
from splat_recon.stereo.config import StereoConfig
from splat_recon.stereo.kernels import count_agreeing, sweep_photo
from splat_render.cameras import Camera
from splat_render.config import RenderConfig

Relations = tuple[
    Float64[np.ndarray, "s 3 3"], Float64[np.ndarray, "s 3"], Float64[np.ndarray, "s 3 3"], Float64[np.ndarray, "s 3"]
]

GRAY = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in a gray value."""

MAX_SLOPE = 3.5
"""Largest gradient of inverse depth, relative to itself, per unit of the image plane: surfaces seen at 74 degrees."""

NEAREST_MARGIN, FARTHEST_MARGIN = 0.6, 2.0
"""Depths are looked for from this times the near to this times the far points of a photo."""

DEPTH_QUANTILE = 0.02
"""The near and the far points are those at this quantile of depth and at 1 minus it."""

MIN_POINTS = 8
"""With fewer points in a photo's sight the range of depths comes from all points in front of it, or around it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthMap:
    """What stereo found for one photo."""

    name: str
    """The photo's name in its scene."""

    camera: Camera
    """Its camera, at the size that was matched."""

    rgb_u8: UInt8[np.ndarray, "h w 3"]
    """The photo at that size."""

    inverse_depth: Float32[np.ndarray, "h w"]
    """1 / depth along z, in scene units."""

    cost: Float32[np.ndarray, "h w"]
    """Mean of 1 - correlation over the photos that fit best, in [0, 2], and of what geometric errors cost."""

    num_agreeing: Int32[np.ndarray, "h w"]
    """How many other photos' depths agree."""

    valid: Bool[np.ndarray, "h w"]
    """Pixels whose depth is believed."""

    @property
    def gray(self) -> Float32[np.ndarray, "h w"]:
        """Gray values in [0, 1]."""
        return _gray(self.rgb_u8)

    @property
    def valid_fraction(self) -> float:
        """Fraction of the pixels that are believed."""
        return float(self.valid.mean())


@dataclass(kw_only=True, eq=False)
class _Photo:
    """A photo on the present level, and its planes."""

    camera: Camera
    rgb_u8: UInt8[np.ndarray, "h w 3"]
    gray: Float32[np.ndarray, "h w"]
    planes: Float64[np.ndarray, "h w 3"]
    nearest: float
    farthest: float
    cost: Float32[np.ndarray, "h w"] = field(init=False)

    def __post_init__(self) -> None:
        self.cost = np.zeros(self.gray.shape, np.float32)


class PatchMatchStereo:
    """A matching that advances round by round and returns in between.

    Args:
        photos: Posed photos of any sizes, at least two; their masks are left to the filters.
        p_world: Points of the scene, which give the range of depths, at least one.
        num_threads: 0 takes every core this process may use.

    Raises:
        ValueError: There are fewer than two photos, or there is no point.
    """

    def __init__(
        self,
        photos: Sequence[View],
        p_world: Float[np.ndarray, "n 3"],
        config: StereoConfig,
        *,
        num_threads: int = 0,
    ) -> None:
        if len(photos) < 2:
            raise ValueError(f"stereo needs at least two photos, got {len(photos)}")
        self.photos = tuple(photos)
        self.config = config
        self.num_threads = RenderConfig(num_threads=num_threads).threads
        self._ranges = [depth_range(photo.camera, p_world) for photo in photos]
        self.sources = nearest_sources([photo.camera for photo in photos], config)
        self._rounds = [
            (level, index)
            for level in range(len(config.sizes))
            for index in range(1 + config.num_geometric_rounds[level])
        ]
        self.num_rounds_done = 0
        self._level: list[_Photo] = []

    @property
    def num_rounds(self) -> int:
        """Rounds in all."""
        return len(self._rounds)

    @property
    def num_coarsest_rounds(self) -> int:
        """Rounds of the coarsest level, which are the first."""
        return 1 + self.config.num_geometric_rounds[0]

    @property
    def done(self) -> bool:
        """Whether all rounds are done."""
        return self.num_rounds_done == self.num_rounds

    def advance(self) -> None:
        """Do one round over all photos; does nothing where all are done."""
        if self.done:
            return
        level, index = self._rounds[self.num_rounds_done]
        if index == 0:
            self._level = self._photos_of(level)
        geometric = index > 0
        gray = np.concatenate([_quads(photo.gray) for photo in self._level])
        # A copy: the photos of a round must not see each other's new depths.
        inverse = _flat_inverse(self._level) if geometric else np.zeros(1, np.float32)
        num_sweeps = self.config.sweeps_per_round if geometric else self.config.num_sweeps[level]

        def sweep(own: int) -> None:
            self._sweep(own, level, index, gray, inverse, geometric=geometric, num_sweeps=num_sweeps)

        self._on_threads(sweep)
        self.num_rounds_done += 1

    def _sweep(
        self,
        own: int,
        level: int,
        index: int,
        gray: UInt64[np.ndarray, " p"],
        inverse: Float32[np.ndarray, " q"],
        *,
        geometric: bool,
        num_sweeps: int,
    ) -> None:
        config, photo, sources = self.config, self._level[own], self.sources[own]
        num_kept = len(sources) if level == 0 else min(config.kept_sources, len(sources))
        offsets = np.arange(-config.radius, config.radius + 1, config.stride)
        squared = offsets[:, None] ** 2 + offsets[None] ** 2
        spatial = np.exp(-squared / (2 * (0.6 * config.radius) ** 2)).astype(np.float32).ravel()
        differences = np.linspace(0, 1, 1024)
        alike = np.exp(-(differences**2) / (2 * config.color_sigma**2)).astype(np.float32)
        sweep_photo(
            photo.gray,
            gray,
            inverse,
            _layout(self._level, sources),
            *_relations(self._level, own, sources),
            config.geometric_weight if geometric else 0.0,
            num_kept,
            config.best_sources,
            photo.planes,
            photo.cost,
            photo.nearest,
            photo.farthest,
            MAX_SLOPE / photo.camera.K[0, 0],
            num_sweeps,
            level == 0,  # Beyond the coarsest level a plane from anywhere hardly ever wins.
            config.radius,
            config.stride,
            spatial,
            alike,
            ((config.seed * 64 + level) * 64 + index) * 4096 + own,
        )

    def depth_maps(self) -> tuple[DepthMap, ...]:
        """The photos' depths as they are now, and how many others agree; nothing is believed yet.

        Raises:
            ValueError: No round is done.
        """
        if not self._level:
            raise ValueError("expected at least one round to be done")
        inverse = _flat_inverse(self._level)
        config = self.config
        maps: list[DepthMap | None] = [None] * len(self.photos)

        def count(own: int) -> None:
            photo, sources = self._level[own], self.sources[own]
            own_inverse = np.ascontiguousarray(photo.planes[..., 0], np.float32)
            agreeing = count_agreeing(
                own_inverse,
                inverse,
                _layout(self._level, sources),
                *_relations(self._level, own, sources),
                config.max_error_px,
                config.max_depth_error,
            )
            maps[own] = DepthMap(
                name=self.photos[own].name,
                camera=photo.camera,
                rgb_u8=photo.rgb_u8,
                inverse_depth=own_inverse,
                cost=photo.cost,
                num_agreeing=agreeing,
                valid=np.zeros(own_inverse.shape, np.bool_),
            )

        self._on_threads(count)
        return tuple(depth_map for depth_map in maps if depth_map is not None)

    def _on_threads(self, work: Callable[[int], None]) -> None:
        if self.num_threads == 1:
            for own in range(len(self.photos)):
                work(own)
            return
        with ThreadPoolExecutor(self.num_threads, thread_name_prefix="stereo") as pool:
            list(pool.map(work, range(len(self.photos))))

    def _photos_of(self, level: int) -> list[_Photo]:
        """The photos at a level's size, with the planes of the level before, or random ones."""
        photos = []
        for own, view in enumerate(self.photos):
            scale = min(1.0, self.config.sizes[level] / max(view.camera.width, view.camera.height))
            camera = view.camera.resized(
                max(1, round(view.camera.width * scale)), max(1, round(view.camera.height * scale))
            )
            rgb_u8 = np.ascontiguousarray(view.rgb_u8)
            if scale < 1:
                size = (camera.width, camera.height)
                rgb_u8 = np.array(Image.fromarray(rgb_u8).resize(size, Image.Resampling.BOX))
            farthest, nearest = self._ranges[own]
            if self._level:
                planes = _enlarged(self._level[own].planes, camera.height, camera.width)
            else:
                rng = np.random.default_rng((self.config.seed, own))
                planes = np.zeros((camera.height, camera.width, 3))
                planes[..., 0] = rng.uniform(farthest, nearest, planes.shape[:2])
            photos.append(
                _Photo(
                    camera=camera, rgb_u8=rgb_u8, gray=_gray(rgb_u8), planes=planes, nearest=nearest, farthest=farthest
                )
            )
        return photos


def depth_range(camera: Camera, p_world: Float[np.ndarray, "n 3"]) -> tuple[float, float]:
    """Least and largest inverse depth to look for in a photo, by the points that lie in its sight.

    A photo that looks away from all points may still show what others show: it gets the points' distances for depths.

    Raises:
        ValueError: There is no point.
    """
    if not len(p_world):
        raise ValueError("expected at least one point")
    p_cam = p_world.astype(np.float64) @ camera.T_cam_world[:3, :3].T + camera.T_cam_world[:3, 3]
    depth = p_cam[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = ((p_cam @ camera.K.T)[:, :2] / depth[:, None]).T
    in_front = depth > 0
    in_sight = in_front & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    depths = depth[in_sight if in_sight.sum() >= MIN_POINTS else in_front]
    if not len(depths):
        depths = np.linalg.norm(p_cam, axis=1)
    near, far = np.quantile(depths, DEPTH_QUANTILE), np.quantile(depths, 1 - DEPTH_QUANTILE)
    return float(1 / (far * FARTHEST_MARGIN)), float(1 / (near * NEAREST_MARGIN))


def nearest_sources(cameras: Sequence[Camera], config: StereoConfig) -> list[Int64[np.ndarray, " s"]]:
    """For each photo the others to compare it with, the nearest in pose first; at least the nearest one."""
    forward = np.stack([camera.T_world_cam[:3, 2] for camera in cameras])
    centers = np.stack([camera.center_world for camera in cameras])
    extent = np.linalg.norm(centers - centers.mean(axis=0), axis=1).max() or 1.0
    chosen = []
    for own in range(len(cameras)):
        angles = np.degrees(np.arccos(np.clip(forward @ forward[own], -1, 1)))
        distances = np.linalg.norm(centers - centers[own], axis=1) / extent + np.radians(angles)
        distances[own] = np.inf
        order = np.argsort(distances, kind="stable")[:-1]
        close = order[angles[order] < config.max_angle_degrees]
        chosen.append((close if len(close) else order[:1])[: config.max_sources])
    return chosen


def _gray(rgb_u8: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    return np.ascontiguousarray((rgb_u8.astype(np.float32) / 255 * GRAY).sum(axis=-1, dtype=np.float32))


def _quads(gray: Float32[np.ndarray, "h w"]) -> UInt64[np.ndarray, " p"]:
    """For each pixel its gray value and those right of it, below and right below, in 16 bits each."""
    levels = np.pad(np.rint(gray * 65535).astype(np.uint64), ((0, 1), (0, 1)), mode="edge")
    corners = (levels[:-1, :-1], levels[:-1, 1:], levels[1:, :-1], levels[1:, 1:])
    return np.bitwise_or.reduce([corner << np.uint64(16 * k) for k, corner in enumerate(corners)]).ravel()


def _flat_inverse(photos: Sequence[_Photo]) -> Float32[np.ndarray, " p"]:
    return np.concatenate([photo.planes[..., 0].astype(np.float32).ravel() for photo in photos])


def _layout(photos: Sequence[_Photo], sources: Int64[np.ndarray, " s"]) -> Int64[np.ndarray, "s 3"]:
    """Offset, height and width of each source in the flat arrays."""
    sizes = [photo.gray.shape for photo in photos]
    offsets = np.concatenate([[0], np.cumsum([height * width for height, width in sizes])])
    return np.array([(offsets[j], *sizes[j]) for j in sources], np.int64)


def _relations(photos: Sequence[_Photo], own: int, sources: Int64[np.ndarray, " s"]) -> Relations:
    """Per source A and b, with which a point (u, v, 1) of inverse depth w lies at A (u, v, 1) + b w, and those back."""
    there = [relation(photos[own].camera, photos[j].camera) for j in sources]
    back = [relation(photos[j].camera, photos[own].camera) for j in sources]
    return (
        np.stack([A for A, _ in there]),
        np.stack([b for _, b in there]),
        np.stack([A for A, _ in back]),
        np.stack([b for _, b in back]),
    )


def relation(camera: Camera, other: Camera) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, " 3"]]:
    """A and b: what a camera sees at (u, v) with inverse depth w, another one sees at A (u, v, 1) + b w, up to scale.

    The third component is the other camera's depth times w.
    """
    T_other_cam = other.T_cam_world @ camera.T_world_cam
    return other.K @ T_other_cam[:3, :3] @ np.linalg.inv(camera.K), other.K @ T_other_cam[:3, 3]


def _enlarged(planes: Float64[np.ndarray, "_h _w 3"], height: int, width: int) -> Float64[np.ndarray, "h w 3"]:
    """Planes at another size: the nearest pixel's, with gradients per new pixel."""
    old_height, old_width = planes.shape[:2]
    rows = np.minimum((np.arange(height) + 0.5) * old_height / height, old_height - 1).astype(np.int64)
    columns = np.minimum((np.arange(width) + 0.5) * old_width / width, old_width - 1).astype(np.int64)
    return planes[rows][:, columns] * np.array([1, old_width / width, old_height / height])
