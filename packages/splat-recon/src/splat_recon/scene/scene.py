"""A captured scene in memory: posed photos and the points that structure from motion found."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt8

from splat_recon.errors import InputError
from splat_render.cameras import Camera

STRAY_CAMERA = 50
"""How many times the median distance of the cameras from their middle a camera may be away and count for the extent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One photo and the camera that took it.

    Raises:
        ValueError: The image or the mask does not have the camera's size.
        InputError: The mask leaves no pixel.
    """

    name: str
    """The photo's name in the scene, with ``/`` between folders; unique."""

    camera: Camera
    """Where the photo was taken, and through which pinhole."""

    rgb_u8: UInt8[np.ndarray, "h w 3"]
    """The photo, sRGB bytes, without distortion."""

    mask: Bool[np.ndarray, "h w"] | None = None
    """True where the photo is valid; None where all of it is."""

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        if self.rgb_u8.dtype != np.uint8 or self.rgb_u8.shape != (*size, 3):
            raise ValueError(
                f"view {self.name}: expected uint8 image of shape {(*size, 3)} (its camera's size), "
                f"got {self.rgb_u8.dtype} {self.rgb_u8.shape}"
            )
        if self.mask is not None and (self.mask.dtype != np.bool_ or self.mask.shape != size):
            raise ValueError(f"view {self.name}: expected bool mask of shape {size}, got {self.mask.shape}")
        if self.mask is not None and not self.mask.any():
            raise InputError(f"view {self.name}: its mask leaves no pixel; remove the mask or the photo")


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Colored points, in the frame of the scene that holds them."""

    p_world: Float[np.ndarray, "n 3"]
    """Positions; kept in float64, as float32 has steps of centimeters in the coordinates of maps."""

    rgb_u8: UInt8[np.ndarray, "n 3"]
    """Colors, sRGB bytes."""

    seen_in: Mapping[str, Int64[np.ndarray, " m"]] = field(default_factory=dict)
    """Indices of the points that structure from motion matched in each photo, by the photo's name; without an entry,
    nothing is known about a photo."""

    at_random: bool = False
    """Whether they were drawn at random, for a scene that brings none."""

    def __post_init__(self) -> None:
        if self.p_world.ndim != 2 or self.p_world.shape[1] != 3 or self.p_world.shape != self.rgb_u8.shape:
            raise ValueError(f"expected [n 3] positions and colors, got {self.p_world.shape}, {self.rgb_u8.shape}")
        object.__setattr__(self, "p_world", np.ascontiguousarray(self.p_world, dtype=np.float64))
        object.__setattr__(self, "rgb_u8", np.ascontiguousarray(self.rgb_u8, dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.p_world)

    def selected(self, chosen: Bool[np.ndarray, " n"]) -> "Points":
        """Those points for which `chosen` is true."""
        new_idx = np.cumsum(chosen) - 1
        seen_in = {name: new_idx[idx[chosen[idx]]] for name, idx in self.seen_in.items()}
        return replace(self, p_world=self.p_world[chosen], rgb_u8=self.rgb_u8[chosen], seen_in=seen_in)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Posed photos and points in one frame, the views sorted by name.

    Raises:
        ValueError: There is no view, or two views share a name.
    """

    views: tuple[View, ...]
    """All photos, sorted by name whatever the order they are given in."""

    points: Points
    """Structure-from-motion points; may be empty."""

    T_scene_colmap: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    """Similarity that maps COLMAP's world to this scene's frame: the identity unless the scene was normalized."""

    name: str = "scene"
    """What to call it in reports."""

    sources: tuple[Path, ...] = ()
    """Files and folders that it was read from, which nothing may be written to."""

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("a scene needs at least one view")
        views = tuple(sorted(self.views, key=lambda view: view.name))
        twice = sorted({a.name for a, b in itertools.pairwise(views) if a.name == b.name})
        if twice:
            raise ValueError(f"view names must be unique, these come twice: {', '.join(twice)}")
        object.__setattr__(self, "views", views)
        object.__setattr__(self, "T_scene_colmap", np.array(self.T_scene_colmap, dtype=np.float64))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all views, sorted."""
        return tuple(view.name for view in self.views)

    def view(self, name: str) -> View:
        """The view of this name.

        Raises:
            KeyError: There is none.
        """
        for view in self.views:
            if view.name == name:
                return view
        raise KeyError(f"scene {self.name} has no view {name!r}")

    def select(self, names: Iterable[str]) -> tuple[View, ...]:
        """The views of these names, in the order of the names.

        Raises:
            KeyError: A name is not in the scene.
        """
        by_name = {view.name: view for view in self.views}
        names = tuple(names)
        missing = [name for name in names if name not in by_name]
        if missing:
            raise KeyError(f"scene {self.name} has no view {', '.join(map(repr, missing[:10]))}")
        return tuple(by_name[name] for name in names)

    @property
    def extent(self) -> float:
        """Largest distance of a camera center from the mean of all of them, in scene units (gsplat: scene scale).

        Cameras that stand `STRAY_CAMERA` times as far from the others as half of them do are left out of account:
        structure from motion has put them in a wrong place.
        """
        centers = np.stack([view.camera.center_world for view in self.views])
        distances = np.linalg.norm(centers - np.median(centers, axis=0), axis=1)
        if np.median(distances) > 0:
            centers = centers[distances <= STRAY_CAMERA * np.median(distances)]
        return float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
