"""One made pair, and the choice of its reference."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from difix_model.references.poses import pose_distances
from splat_recon.scene.scene import Scene


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedPair:
    """A degraded image of a view, and the names of the photos that belong to it."""

    name: str
    """Unique within the scene."""
    label: str
    """Which training it comes from; pairs of one training share it."""
    degraded_u8: UInt8[np.ndarray, "h w 3"]
    target: str
    """Name of the photo that the image should look like."""
    reference: str
    """Name of a captured photo from nearby."""
    coverage: float = 1.0
    """Mean opacity of the render, in [0, 1]."""
    trained_on: tuple[str, ...] = ()
    """Names of the photos that the splat has seen; empty where there was no splat."""


def ranked_references(scene: Scene, target: str, candidates: list[str]) -> list[str]:
    """Other photos by distance of their pose from the target's, nearest first; the target itself is left out.

    The distance is that of `difix_model.references.poses` with the scene's extent as unit of length: distance of the
    camera centers in extents plus angle in radians. Of equally near ones the first by name comes first.
    """
    others = [name for name in candidates if name != target]
    if not others:
        raise ValueError(f"expected a photo other than {target} to serve as its reference")
    distances = distances_to(scene, target, others)
    return [others[i] for i in np.argsort(distances, kind="stable")]


def distances_to(scene: Scene, target: str, names: list[str]) -> np.ndarray:
    """Distances of photos from one photo, in scene extents plus radians."""
    T_world_target = scene.view(target).camera.T_world_cam[None]
    T_world_other = np.stack([scene.view(name).camera.T_world_cam for name in names])
    return pose_distances(T_world_target, T_world_other, extent=max(scene.extent, 1e-9))[0]
