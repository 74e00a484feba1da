"""Films of Gaussians along cameras: pictures, depths and opacities, as videos or as one file per frame."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8

from media_files.video_writer import VideoWriter
from output_files import written_whole
from splat_recon.errors import InputError
from splat_recon.io.images import to_u8, write_photo
from splat_recon.pages.pictures import depth_colors
from splat_render.cameras import Camera
from splat_render.gaussians import Gaussians
from splat_render.output import RenderOutput

Shown = Literal["rgb", "depth", "alpha"]

RECORD = "render.json"
"""File in a folder of frames that says what they are frames of."""

NUM_DEPTH_SAMPLES = 8
"""Frames from which the range of a film's depth colors is taken."""

MIN_ALPHA = 0.5
"""Opacity from which a pixel's depth counts for that range."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """What is to be rendered."""

    render: Callable[[Camera], RenderOutput]
    """From a camera to its picture."""

    cameras: Sequence[Camera]
    """One per frame."""

    shown: Sequence[Shown] = ("rgb",)
    """Colors, depths, opacities."""

    depth_unit: float = 1.0
    """Length of the file's unit in units of the cameras' frame: depths are divided by it where they are written."""

    on_frame: Callable[[], None] = lambda: None
    """Called after each frame."""


def write_videos(path: Path, film: Film, *, fps: float) -> list[Path]:
    """Write one video for each of `film.shown`: the first under the name itself, `NAME_depth.mp4` for the next.

    Depths are colors here, in one range for the whole film.
    """
    others = [path.with_name(f"{path.stem}_{kind}{path.suffix}") for kind in film.shown[1:]]
    paths = [path, *others]
    limits = _depth_limits(film) if "depth" in film.shown else (1.0, 2.0)
    with ExitStack() as stack:
        videos = [stack.enter_context(VideoWriter(target, rate=fps, even=True)) for target in paths]
        for camera in film.cameras:
            out = film.render(camera)
            for video, kind in zip(videos, film.shown, strict=True):
                video.write(_pictured(out, kind, limits))
            film.on_frame()
    return paths


def write_frames(folder: Path, film: Film, record: dict[str, object], *, overwrite: bool = False) -> int:
    """Write a file for each frame: `rgb/000000.png`, `alpha/000000.png`, `depth/000000.npy` and a colored PNG.

    Depths are float32, in units of the file (0 where nothing is); the colored ones are in `depth_color/`. Frames that
    are there already, from a render that was cut short, are not rendered again.

    Args:
        record: What the frames depend on; kept in the folder, and compared.
        overwrite: Whether frames of something else may be replaced.

    Returns:
        How many frames were rendered.

    Raises:
        InputError: The folder holds frames of something else, or cannot be written.
    """
    content = {**record, "shown": sorted(film.shown), "num_frames": len(film.cameras)}
    kept = _check_record(folder, json.loads(json.dumps(content)), overwrite=overwrite)
    if overwrite:
        _remove_frames(folder)
    limits = _depth_limits(film) if "depth" in film.shown else (1.0, 2.0)
    num_rendered = 0
    for index, camera in enumerate(film.cameras):
        files = _frame_files(folder, film.shown, index)
        if not (kept and all(file.is_file() for file in files.values())):
            _write_frame(files, film, film.render(camera), limits)
            num_rendered += 1
        film.on_frame()
    return num_rendered


def _check_record(folder: Path, content: dict[str, object], *, overwrite: bool) -> bool:
    """Whether frames that are in the folder may be kept; writes the record."""
    path = folder / RECORD
    before = None
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            before = {}
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no frames of a render: choose another --out")
    if before == content:
        return not overwrite
    if before is not None and not overwrite:
        raise InputError(f"{folder} holds frames of another render: add --overwrite, or choose another --out")
    with written_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return False


def _remove_frames(folder: Path) -> None:
    """Remove the frames of an earlier render, which may have had more of them, and nothing else."""
    for kind in ("rgb", "alpha", "depth", "depth_color"):
        for path in (folder / kind).glob("[0-9]" * 6 + ".*"):
            path.unlink()


def _frame_files(folder: Path, shown: Sequence[Shown], index: int) -> dict[str, Path]:
    files = {}
    for kind in shown:
        if kind == "depth":
            files["depth"] = folder / "depth" / f"{index:06d}.npy"
            files["depth_color"] = folder / "depth_color" / f"{index:06d}.png"
        else:
            files[kind] = folder / kind / f"{index:06d}.png"
    return files


def _write_frame(files: dict[str, Path], film: Film, out: RenderOutput, limits: tuple[float, float]) -> None:
    for kind, path in files.items():
        if kind == "depth":
            depth = (out.depth[..., 0] / film.depth_unit).cpu().numpy().astype(np.float32)
            with written_whole(path) as partial, partial.open("wb") as file:
                np.save(file, depth, allow_pickle=False)
        else:
            picture = _pictured(out, "depth" if kind == "depth_color" else kind, limits)
            write_photo(path, picture)


def _pictured(out: RenderOutput, kind: str, limits: tuple[float, float]) -> UInt8[np.ndarray, "h w 3"]:
    if kind == "rgb":
        return to_u8(out.rgb)
    if kind == "alpha":
        return to_u8(out.alpha.expand(-1, -1, 3))
    return depth_colors(out.depth[..., 0].cpu().numpy(), out.alpha[..., 0].cpu().numpy(), *limits)


def _depth_limits(film: Film) -> tuple[float, float]:
    """Near and far of what some frames show, one range for all so that colors do not flicker."""
    found = []
    for index in sorted({round(i) for i in np.linspace(0, len(film.cameras) - 1, NUM_DEPTH_SAMPLES)}):
        camera = film.cameras[index]
        small = camera.resized(max(16, camera.width // 4), max(16, camera.height // 4))
        out = film.render(small)
        found.append(out.depth[out.alpha >= MIN_ALPHA].cpu().numpy())
    depths = np.concatenate(found)
    depths = depths[depths > 0]
    return _spaced(np.percentile(depths, [2, 98])) if len(depths) else (1.0, 2.0)


def depth_range(gaussians: Gaussians, cameras: Sequence[Camera]) -> tuple[float, float]:
    """Depths of the nearest and the farthest tenth of the Gaussians' centers that cameras have in their images."""
    found = []
    means = gaussians.means.detach().cpu().double()
    for camera in cameras:
        T = torch.from_numpy(camera.T_cam_world)
        p_cam = means @ T[:3, :3].T + T[:3, 3]
        z = p_cam[:, 2]
        xy = (p_cam[:, :2] / z[:, None]) @ torch.from_numpy(camera.K[:2, :2]).T + torch.from_numpy(camera.K[:2, 2])
        inside = (z > 0) & (xy >= 0).all(dim=1) & (xy[:, 0] <= camera.width) & (xy[:, 1] <= camera.height)
        found.append(z[inside].numpy())
    depths = np.concatenate(found) if found else np.zeros(0)
    return _spaced(np.percentile(depths, [10, 90])) if len(depths) else (1.0, 2.0)


def digests(gaussians: Gaussians, cameras: Sequence[Camera]) -> dict[str, str]:
    """SHA-256 of the Gaussians and of the cameras, by which a render is recognized."""
    of_gaussians, of_cameras = hashlib.sha256(), hashlib.sha256()
    for tensor in gaussians.parameters().values():
        of_gaussians.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for camera in cameras:
        of_cameras.update(camera.T_world_cam.tobytes() + camera.K.tobytes())
    return {"gaussians": of_gaussians.hexdigest(), "cameras": of_cameras.hexdigest()}


def _spaced(limits: np.ndarray) -> tuple[float, float]:
    near = max(float(limits[0]), 1e-6)
    return near, max(float(limits[1]), near * 1.01)
