"""Where a run begins instead of the scene's points: a finished splat, of this project or of others.

A PLY file and its like are in COLMAP's frame (Inria, gsplat's and this project's exports). splatfacto's export is in
nerfstudio's own frame; its run keeps the way back in `dataparser_transforms.json`, which is read where it lies beside
the file. Checkpoints, gsplat's and ours, are in the normalized frame of their training, which
each computes in its own way, and which is computed again from the same photos.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from difix3d.errors import InputError
from splat_recon.checkpoint import config_from_state, gaussians_from_tensors, latest_valid, read_checkpoint
from splat_recon.io.nerfstudio_frame import colmap_from_nerfstudio
from splat_recon.scene.normalize import gsplat_frame
from splat_recon.scene.scene import Scene
from splat_render.files.background import BLACK, Background
from splat_render.files.formats import read_background, read_splats
from splat_render.gaussians import Gaussians
from splat_render.poses import inverse, rigid
from splat_render.transform import transformed

if TYPE_CHECKING:
    from difix3d.run.settings import RunSettings

SAFE_TORCH = (2, 10)
"""Oldest release of torch whose `weights_only` loading is trusted with a stranger's file."""

RANK_FILE = re.compile(r"ckpt_(\d+)_rank(\d+)\.pt")
"""gsplat's names: step and rank."""

GSPLAT_FIELDS = {
    "means": "means",
    "scales": "log_scales",
    "quats": "quats_wxyz",
    "opacities": "logit_opacities",
    "sh0": "sh0",
    "shN": "sh_rest",
}
"""gsplat's name of a parameter to ours."""


def start_gaussians(settings: RunSettings, scene: Scene) -> Gaussians:
    """The finished splat `settings.start` in the scene's frame, on the CPU."""
    path = Path(settings.start or "")
    if _is_splat_file(path):
        content = read_splats(path)
        T_colmap_file = colmap_from_nerfstudio(path) @ rigid(np.eye(3), np.array(content.offset))
        return transformed(content.gaussians, scene.T_scene_colmap @ T_colmap_file)
    if path.suffix == ".pt":
        gaussians = _of_gsplat(path)
        T_scene_file = scene.T_scene_colmap if settings.start_frame == "colmap" else inverse(gsplat_frame(scene))
        return transformed(gaussians, T_scene_file)
    return _of_ours(path, scene)


def start_background(settings: RunSettings) -> Background:
    """The color that a finished splat stands before: what its file or checkpoint says, else black."""
    if settings.start is None:
        return BLACK
    path = Path(settings.start)
    if _is_splat_file(path):
        return read_background(path) or BLACK
    folder = None if path.suffix == ".pt" else _checkpoint_folder(path)
    return BLACK if folder is None else config_from_state(read_checkpoint(folder).values, folder).background


def _is_splat_file(path: Path) -> bool:
    """Whether a start is a file of Gaussians, and no checkpoint."""
    return path.suffix != ".pt" and not path.is_dir()


def _checkpoint_folder(path: Path) -> Path | None:
    return next((found for found in _candidates(path) if found is not None and (found / "state.json").is_file()), None)


def _of_ours(path: Path, scene: Scene) -> Gaussians:
    folder = _checkpoint_folder(path)
    if folder is None:
        raise InputError(f"{path} holds no checkpoint: expected a run's folder, its checkpoint, or gsplat's .pt file")
    found = read_checkpoint(folder)
    extent = float(found.values["scene"]["extent"])
    if not np.isclose(extent, scene.extent, rtol=1e-3):
        raise InputError(
            f"checkpoint {folder} is of another scene: its cameras extend over {extent:.4g}, those of {scene.name} "
            f"over {scene.extent:.4g}"
        )
    return gaussians_from_tensors(found.tensors)


def _candidates(path: Path) -> list[Path | None]:
    """Where under a path a splat's checkpoint may lie, this project's two kinds of runs included."""
    newest = max(path.glob("checkpoints/step_*"), key=lambda found: int(found.name[5:]), default=None)
    found: list[Path | None] = [path, path / "splat", path / "loop" / "main" / "splat"]
    if newest is not None:
        found += [newest / "loop" / "main" / "splat", newest / "plain", latest_valid(path / "checkpoints")]
    return found


def _of_gsplat(path: Path) -> Gaussians:
    match = RANK_FILE.fullmatch(path.name)
    paths = [path]
    if match is not None:
        ranks = {int(RANK_FILE.fullmatch(found.name)[2]): found for found in _of_same_step(path, match[1])}  # pyright: ignore[reportOptionalSubscript]
        missing = sorted(set(range(max(ranks, default=-1) + 1)) - set(ranks))
        if missing:
            raise InputError(f"{path}: the files of ranks {', '.join(map(str, missing))} are missing beside it")
        paths = [ranks[rank] for rank in sorted(ranks)] or paths
    parts = [_gaussians_of_rank(found) for found in paths]
    try:
        return Gaussians(**{name: torch.cat([part[name] for part in parts]) for name in GSPLAT_FIELDS.values()})
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path} does not hold gsplat's Gaussians: {error}") from error


def _of_same_step(path: Path, step: str) -> list[Path]:
    return [
        found
        for found in path.parent.glob("ckpt_*_rank*.pt")
        if (match := RANK_FILE.fullmatch(found.name)) and match[1] == step
    ]


def _gaussians_of_rank(path: Path) -> dict[str, torch.Tensor]:
    """One rank's Gaussians; the file may not run anything."""
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_TORCH:
        raise InputError(
            f"{path}: reading it safely needs torch {'.'.join(map(str, SAFE_TORCH))} or newer, this is "
            f"{torch.__version__}: export a PLY file instead"
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        splats = content["splats"]
        return {ours: splats[name].detach().float() for name, ours in GSPLAT_FIELDS.items()}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except Exception as error:
        # What a damaged or a harmful file makes torch raise is not one kind of error.
        raise InputError(
            f"{path} is not a checkpoint of gsplat's trainer with spherical harmonics: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
