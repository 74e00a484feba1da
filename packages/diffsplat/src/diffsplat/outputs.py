"""What is written of a generated object: splat files, a turntable, a contact sheet, and how it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

import media_files
import splat_render
from diffsplat.cameras import AZIMUTHS_DEG, FOCAL, flipped_axes
from diffsplat.errors import InputError
from diffsplat.pipeline import GeneratedSplat, orbit_frames
from diffsplat.render import raw_gaussians

PARAMETERS = "parameters.json"
"""Written last: an object whose folder holds it is whole."""

CAMERAS = "transforms.json"
"""Of the object's own views, for programs that render the splat file."""

SplatEnding = Literal["ply", "spz", "splat"]
TurntableKind = Literal["mp4", "gif", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputConfig:
    """What is written."""

    formats: tuple[SplatEnding, ...] = ("ply",)
    """Splat files."""
    min_opacity: float = 0.0
    """Gaussians that are not more opaque than this are left out of splat files, in [0, 1)."""
    turntable: TurntableKind = "mp4"
    """A film of a full turn, or none."""
    num_frames: int = 180
    """Frames of the turntable."""
    fps: float = 30.0
    """Frames per second of the turntable."""
    size: int = 256
    """Side of frames and pictures in pixels."""

    def __post_init__(self) -> None:
        if not self.formats:
            raise InputError("no format is given: take ply, spz or splat")
        if not 0 <= self.min_opacity < 1:
            raise InputError(f"min_opacity must be in [0, 1), got {self.min_opacity}")
        if min(self.num_frames, self.size) < 1 or not self.fps > 0:
            raise InputError("num_frames and size must be at least 1, fps above 0")


def folder_name(index: int, prompt: str) -> str:
    """Of an object: its place in the list, and the beginning of its prompt."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-")
    return f"{index:04d}-{words}" if words else f"{index:04d}"


def opaque_gaussians(splat: GeneratedSplat, min_opacity: float) -> splat_render.Gaussians:
    """An object's raw parameters, without the Gaussians that are not more opaque than a limit."""
    raw = raw_gaussians(splat.gaussians)
    kept = splat.gaussians.opacities[0] > min_opacity
    return raw.mapped(lambda values: values[kept].detach().cpu())


def write_splat(path: Path, splat: GeneratedSplat, *, min_opacity: float = 0.0) -> int:
    """Write a splat file of the kind that its name ends in; returns the number of Gaussians in it.

    PLY files also hold colors as bytes, for programs that know point clouds only.

    Raises:
        InputError: No Gaussian is opaque enough, or the file cannot be written.
    """
    gaussians = opaque_gaussians(splat, min_opacity)
    if len(gaussians) == 0:
        raise InputError(f"no Gaussian of {splat.prompt!r} is more opaque than {min_opacity}: lower min_opacity")
    if path.suffix == ".ply":
        splat_render.write_ply(path, gaussians, with_rgb=True)
    else:
        splat_render.write_splats(path, splat_render.SplatFile(gaussians=gaussians))
    return len(gaussians)


def turntable_frames(splat: GeneratedSplat, num_frames: int, size: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Pictures of a full turn. The Gaussians were decoded once; every frame only renders them."""
    for pose in orbit_frames(num_frames, splat.elevation_deg, float(splat.T_world_cam[0, :3, 3].norm())):
        yield _bytes(splat.render(pose[None], size)[0].permute(1, 2, 0).cpu().numpy())


def contact_sheet(splat: GeneratedSplat, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """The object's own views side by side."""
    views = splat.render(splat.T_world_cam[: len(AZIMUTHS_DEG)], size).permute(0, 2, 3, 1).cpu().numpy()
    return np.concatenate([_bytes(view) for view in views], axis=1)


def _bytes(rgb: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    return np.ascontiguousarray(np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8))


def camera_file(splat: GeneratedSplat, size: int) -> dict[str, Any]:
    """The object's own views as the content of a transforms.json: poses with OpenGL's axes, intrinsics in pixels."""
    poses = flipped_axes(splat.T_world_cam.cpu()).tolist()
    frames = [{"file_path": f"view_{index}.png", "transform_matrix": pose} for index, pose in enumerate(poses)]
    focal, middle = FOCAL * size, size / 2
    lens = {"fl_x": focal, "fl_y": focal, "cx": middle, "cy": middle, "w": size, "h": size}
    return {"camera_model": "OPENCV", **lens, "frames": frames}


def write_object(folder: Path, splat: GeneratedSplat, config: OutputConfig, parameters: dict[str, Any]) -> list[Path]:
    """Write everything of one object; its parameters come last.

    Args:
        folder: Of the object; made if needed.
        splat: The object.
        config: What is written.
        parameters: How it was made, as JSON values.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PARAMETERS).unlink(missing_ok=True)
        written = []
        num = 0
        for ending in config.formats:
            num = write_splat(folder / f"splat.{ending}", splat, min_opacity=config.min_opacity)
            written.append(folder / f"splat.{ending}")
        Image.fromarray(contact_sheet(splat, config.size)).save(folder / "views.png")
        written.append(folder / "views.png")
        cameras = json.dumps(camera_file(splat, config.size), indent=2) + "\n"
        (folder / CAMERAS).write_text(cameras, encoding="utf-8")
        written.append(folder / CAMERAS)
        if config.turntable != "none":
            written.append(folder / f"turntable.{config.turntable}")
            _write_turntable(written[-1], splat, config)
        found = {
            **parameters, "prompt": splat.prompt, "seed": splat.seed, "elevation_deg": splat.elevation_deg,
            "num_gaussians": num,
        }  # fmt: skip
        partial = folder / f".{PARAMETERS}.tmp"
        partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / PARAMETERS)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
    return [*written, folder / PARAMETERS]


def _write_turntable(path: Path, splat: GeneratedSplat, config: OutputConfig) -> None:
    frames = turntable_frames(splat, config.num_frames, config.size)
    if path.suffix == ".gif":
        pictures = [Image.fromarray(frame) for frame in frames]
        duration = round(1000 / config.fps)
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0)
        return
    media_files.write_video(path, frames, rate=config.fps, even=True)


def is_whole(folder: Path, parameters: dict[str, Any]) -> bool:
    """Whether an object was written, with the same parameters."""
    try:
        found = json.loads((folder / PARAMETERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # JSON turns tuples into lists.
    wanted = json.loads(json.dumps(parameters))
    return all(found.get(key) == value for key, value in wanted.items())
