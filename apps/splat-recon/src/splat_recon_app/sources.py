"""What `--splat` names: a run of this command, of difix3d-train or of others, or a file; opened to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands import Device
from splat_recon import run_folder
from splat_recon.io.own_runs import cameras_of_run, is_splat_run, splat_in_training
from splat_recon.run_folder import RunFolder
from splat_render.files.folders import Which

if TYPE_CHECKING:
    from splat_recon import SplatModel
    from splat_render import Camera


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedSplats:
    """Splats and the cameras that go with them."""

    splats: SplatModel
    """What is seen."""

    cameras: dict[str, Camera]
    """By the photos' names, in the frame of the Gaussians; none where nothing names some."""

    colmap_unit: float = 1.0
    """Length of COLMAP's unit in that frame."""

    fps: float | None = None
    """Frames per second, where the cameras' file says."""


def opened(path: Path, which: Which, *, cameras: Path | None, device: Device) -> OpenedSplats:
    """Open splats, and their own cameras or others.

    Args:
        path: A run, a file, or the output folder of the 3D Gaussian Splatting code.
        which: Of a run of difix3d-train, which of its splats.
    """
    from splat_recon import SplatModel
    from splat_render import chosen_device
    from splat_render.poses import decompose_similarity, transform_camera

    place = chosen_device(device)
    in_training = splat_in_training(path, which)
    is_run = is_splat_run(path) or in_training is not None
    named = cameras or (None if is_run else cameras_of_run(path))
    given: dict[str, Camera] = {}
    fps = None
    if named is not None:
        from splat_recon import read_camera_file

        file = read_camera_file(named)
        given, fps = _by_name(file.names, file.cameras), file.fps
    if not is_run:
        splats = SplatModel.of_file(path, which=which, device=place)
        near = {name: splats.near(camera) for name, camera in given.items()}
        return OpenedSplats(splats=splats.without_offset(), cameras=near, fps=fps)

    run = RunFolder(path)
    captured, T_scene_colmap = run_folder.read_cameras(run)
    moved = {name: transform_camera(T_scene_colmap, camera) for name, camera in given.items()}
    newest = (
        SplatModel.newest(run.checkpoints, device=place)
        if in_training is None
        else SplatModel.load(in_training, device=place)
    )
    return OpenedSplats(
        splats=newest, cameras=moved or captured, colmap_unit=float(decompose_similarity(T_scene_colmap)[0]), fps=fps
    )


def _by_name(names: list[str], cameras: list[Camera]) -> dict[str, Camera]:
    """Cameras by name, in order; a camera path may have one name for many."""
    found: dict[str, Camera] = {}
    for index, (name, camera) in enumerate(zip(names, cameras, strict=True)):
        found[name if name not in found else f"{name} ({index})"] = camera
    return found
