"""The captured photos of a scene with the poses of their cameras, for references by pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from difix3d.errors import InputError
from difix_model.references.camera_poses import find_poses
from difix_model.references.poses import ranked_poses
from media_files.photos import image_files
from splat_recon.io.frames_of_layouts import frames_of
from splat_recon.io.layouts import layout_of
from splat_recon.io.transforms_json import frames_cameras


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPhotos:
    """Photos on disk, and from where they were taken."""

    paths: tuple[Path, ...]
    """One per pose."""

    T_world_photo: Float64[np.ndarray, "n 4 4"]
    """In the world of the scene's cameras."""

    extent: float
    """Of the cameras: the length that counts as one radian."""

    @classmethod
    def of_scene(cls, scene: Path) -> PosedPhotos:
        """Those photos of a scene's folder that its cameras name.

        Raises:
            InputError: There are no photos, no cameras, or none that belong together.
        """
        listed = find_poses(scene)
        if listed is None:
            return cls._of(_photos_of_other_layout(scene))
        posed = [(path, pose) for path in photos_of(scene) if (pose := listed.of(path)) is not None]
        if not posed:
            raise InputError(f"{listed.source} lists no camera of a photo in {scene}")
        return cls._of(posed)

    @classmethod
    def _of(cls, posed: Sequence[tuple[Path, Float64[np.ndarray, "4 4"]]]) -> PosedPhotos:
        T_world_photo = np.stack([pose for _, pose in posed])
        centers = T_world_photo[:, :3, 3]
        extent = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()) or 1.0
        return cls(paths=tuple(path for path, _ in posed), T_world_photo=T_world_photo, extent=extent)

    def less(self, offset: tuple[float, float, float]) -> PosedPhotos:
        """The same in a world whose origin lies at `offset`."""
        T_near_photo = self.T_world_photo.copy()
        T_near_photo[:, :3, 3] -= offset
        return replace(self, T_world_photo=T_near_photo)

    def nearest(self, T_world_cam: Float64[np.ndarray, "n 4 4"], num: int) -> tuple[tuple[Path, ...], ...]:
        """For every pose so many photos (all, if there are fewer), the nearest first."""
        ranked = ranked_poses(T_world_cam, self.T_world_photo, num, extent=self.extent)
        return tuple(tuple(self.paths[index] for index in row) for row in ranked)


def _photos_of_other_layout(scene: Path) -> list[tuple[Path, Float64[np.ndarray, "4 4"]]]:
    """Photos and poses of a scene folder that `splat_recon` alone reads: Blender's, Polycam's, Record3D's."""
    layout = layout_of(scene)
    if layout is None:
        raise InputError(f"{scene} holds no cameras: choose references by similarity")
    file = frames_of(scene, layout)
    cameras = frames_cameras(file)
    root = file.photos or file.folder
    posed = [(root / name, camera.T_world_cam) for name, camera in cameras.items() if (root / name).is_file()]
    if not posed:
        raise InputError(f"{scene} lists no camera of a photo that is there")
    return posed


def photos_of(scene: Path) -> list[Path]:
    """The photos in `images/` of a folder, or in the folder itself."""
    folder = scene / "images" if (scene / "images").is_dir() else scene
    photos = image_files(folder) or image_files(folder, recursive=True)
    if not photos:
        raise InputError(f"{folder} holds no photos to choose references from")
    return photos
