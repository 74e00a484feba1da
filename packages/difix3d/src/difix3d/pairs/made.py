"""One made pair, and the choice of its reference."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from difix3d.references import pose_distances
from splat_recon.scene.scene import Scene


@dataclass(frozen=True, kw_only=True, eq=False)
class MadePair:
    """A degraded image of a view, and the names of the photos that belong to it."""

    name: str
    """Unique within the scene."""
    degraded_u8: UInt8[np.ndarray, "h w 3"]
    target: str
    """Name of the photo that the image should look like."""
    reference: str
    """Name of a captured photo from nearby."""


def ranked_references(scene: Scene, target: str, candidates: list[str]) -> list[str]:
    """Other photos by distance of their pose from the target's, nearest first; the target itself is left out."""
    others = [name for name in candidates if name != target]
    if not others:
        raise ValueError(f"expected a photo other than {target} to serve as its reference")
    T_world_target = scene.view(target).camera.T_world_cam[None]
    T_world_other = np.stack([scene.view(name).camera.T_world_cam for name in others])
    distances = pose_distances(T_world_target, T_world_other, extent=max(scene.extent, 1e-9))[0]
    return [others[i] for i in np.argsort(distances, kind="stable")]
