"""The start that stereo gives a training: its points beside those of structure from motion, and what was believed."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from output_files import written_whole
from splat_recon.config import FEW_PHOTOS, AdcConfig, TrainConfig
from splat_recon.errors import InputError
from splat_recon.scene.scene import Points, Scene, View
from splat_recon.stereo.config import StereoConfig
from splat_recon.stereo.filters import with_valid_depths
from splat_recon.stereo.patch_match import MIN_POINTS, DepthMap, PatchMatchStereo
from splat_render.cameras import Camera

StereoMode = Literal["auto", "on", "off"]
"""auto: for as many photos as it was seen to help. on: for any number. off: never."""

FORMAT = 1
"""Version of the file that `save_depth_maps` writes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class StereoStart:
    """What stereo adds to a scene's points."""

    depth_maps: tuple[DepthMap, ...]
    """One per photo; those of which too little is believed have no valid pixel."""

    points: Points
    """Points of believed pixels, in the scene's frame; empty where nothing is believed."""

    config: StereoConfig
    """How they were found."""

    @classmethod
    def of(cls, depth_maps: Sequence[DepthMap], config: StereoConfig) -> StereoStart:
        """The start that depth maps give."""
        return cls(depth_maps=tuple(depth_maps), points=points_of(depth_maps, config), config=config)

    @property
    def helps(self) -> bool:
        """Whether anything is believed."""
        return len(self.points) > 0

    def scene(self, scene: Scene) -> Scene:
        """The scene with these points after its own, whose indices in `Points.seen_in` stay true."""
        own = scene.points
        points = Points(
            p_world=np.concatenate([own.p_world, self.points.p_world]),
            rgb_u8=np.concatenate([own.rgb_u8, self.points.rgb_u8]),
            seen_in=own.seen_in,
            at_random=own.at_random,
        )
        return replace(scene, points=points)

    def train_config(self, config: TrainConfig) -> TrainConfig:
        """The training's config with a start of dense points: density control grows less of them.

        Only a threshold that is the default is changed, and nothing where nothing is believed.
        """
        strategy = config.strategy
        if not self.helps or not isinstance(strategy, AdcConfig) or strategy.absgrad:
            return config
        if strategy.grow_grad2d != AdcConfig().grow_grad2d:
            return config
        return replace(config, strategy=replace(strategy, grow_grad2d=self.config.grow_grad2d))

    def summary(self) -> str:
        """One sentence for a log and a report."""
        if not self.helps:
            return (
                f"Stereo: no depth of {len(self.depth_maps)} photos is believed; training starts from the scene's "
                "points alone."
            )
        used = [depth_map.valid_fraction for depth_map in self.depth_maps if depth_map.valid.any()]
        least, most = f"{min(used):.0%}", f"{max(used):.0%}"
        return (
            f"Stereo: {len(self.points)} points from {len(used)} of {len(self.depth_maps)} photos, of which "
            f"{least if least == most else f'{least} to {most}'} of the pixels are believed."
        )


class StereoMatching:
    """A stereo start in the making: `advance` until `done`, then `start`.

    Args:
        scene: Gives the range of depths by its points: only those that the photos' own structure from motion found
            should be among them.
        photos: Photos to match, in the scene's frame, of any size.
        num_threads: 0 takes every core this process may use; the result does not depend on it.
    """

    def __init__(
        self, scene: Scene, photos: Sequence[View], config: StereoConfig | None = None, *, num_threads: int = 0
    ) -> None:
        self.config = config or StereoConfig()
        self._points = scene.points
        self._photos = tuple(photos)
        self._matcher = PatchMatchStereo(photos, scene.points.p_world, self.config, num_threads=num_threads)
        self._given_up = False

    @property
    def num_rounds(self) -> int:
        """Rounds of matching in all; fewer once the coarsest level shows that nothing is going to be believed."""
        return self._matcher.num_rounds_done if self._given_up else self._matcher.num_rounds

    @property
    def num_rounds_done(self) -> int:
        """Rounds that are done."""
        return self._matcher.num_rounds_done

    @property
    def done(self) -> bool:
        """Whether the matching is done."""
        return self._given_up or self._matcher.done

    def advance(self) -> None:
        """Match for one more round; does nothing where all are done."""
        if self.done:
            return
        self._matcher.advance()
        if self._matcher.num_rounds_done == self._matcher.num_coarsest_rounds:
            half = replace(self.config, min_fraction=self.config.min_fraction / 2)
            self._given_up = not any(depth_map.valid.any() for depth_map in self._depth_maps(half))

    def start(self) -> StereoStart:
        """What is believed of the depths as they are now, and points from it."""
        start = StereoStart.of(self._depth_maps(self.config), self.config)
        logger.info("%s", start.summary())
        return start

    def _depth_maps(self, config: StereoConfig) -> tuple[DepthMap, ...]:
        return with_valid_depths(self._matcher.depth_maps(), self._photos, self._points, config)


def wants_stereo(mode: StereoMode, scene: Scene, num_photos: int) -> bool:
    """Whether a training of so many photos starts with stereo.

    From 3, 6 and 12 photos of captured scenes stereo gains on test photos; more were not measured, so auto stops at
    twelve. Both auto and on do without it, and say so, where there are too few points to know where to look.

    Raises:
        InputError: Stereo was asked for with one photo.
    """
    if mode == "off" or (mode == "auto" and not 2 <= num_photos <= FEW_PHOTOS):
        return False
    if num_photos < 2:
        raise InputError("stereo needs at least two training photos: leave --stereo on out, or add photos")
    if len(scene.points) < MIN_POINTS:
        logger.warning("the scene has %d points, too few to know the range of depths: no stereo", len(scene.points))
        return False
    return True


def points_of(maps: Sequence[DepthMap], config: StereoConfig) -> Points:
    """A random choice of the believed pixels as points, in the maps' order."""
    positions, colors = [], []
    for depth_map in maps:
        y, x = np.nonzero(depth_map.valid)
        depth = 1 / depth_map.inverse_depth[y, x].astype(np.float64)
        pixels = np.stack([x + 0.5, y + 0.5, np.ones_like(depth)], axis=1)
        p_cam = pixels @ np.linalg.inv(depth_map.camera.K).T * depth[:, None]
        T = depth_map.camera.T_world_cam
        positions.append(p_cam @ T[:3, :3].T + T[:3, 3])
        colors.append(depth_map.rgb_u8[y, x])
    p_world, rgb_u8 = np.concatenate(positions), np.concatenate(colors)
    if len(p_world) > config.num_points:
        chosen = np.sort(np.random.default_rng(config.seed).permutation(len(p_world))[: config.num_points])
        p_world, rgb_u8 = p_world[chosen], rgb_u8[chosen]
    return Points(p_world=p_world, rgb_u8=rgb_u8)


def save_depth_maps(path: Path, maps: Sequence[DepthMap]) -> None:
    """Write depth maps as one npz file, whole or not at all."""
    arrays: dict[str, np.ndarray] = {"format": np.array(FORMAT), "names": np.array([one.name for one in maps])}
    for index, one in enumerate(maps):
        arrays[f"{index}.T_world_cam"], arrays[f"{index}.K"] = one.camera.T_world_cam, one.camera.K
        for name in ("rgb_u8", "inverse_depth", "cost", "num_agreeing", "valid"):
            arrays[f"{index}.{name}"] = getattr(one, name)
    with written_whole(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def load_depth_maps(path: Path) -> tuple[DepthMap, ...]:
    """Read what `save_depth_maps` wrote."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if int(arrays["format"]) != FORMAT:
                raise InputError(f"{path} is of another version: remove it, and stereo is done again")
            return tuple(_depth_maps(arrays))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, and stereo is done again") from error


def _depth_maps(arrays: np.lib.npyio.NpzFile) -> Iterator[DepthMap]:
    for index, name in enumerate(arrays["names"].tolist()):
        images = {
            field: arrays[f"{index}.{field}"] for field in ("rgb_u8", "inverse_depth", "cost", "num_agreeing", "valid")
        }
        height, width = images["inverse_depth"].shape
        camera = Camera(T_world_cam=arrays[f"{index}.T_world_cam"], K=arrays[f"{index}.K"], width=width, height=height)
        yield DepthMap(name=name, camera=camera, **images)
