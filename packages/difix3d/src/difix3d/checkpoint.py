"""A run of the progressive method on disk: the splat's checkpoint and the novel views it was training on.

A folder holds `splat/` (written by the splat's trainer), `progress.json` and, once a round is done,
`novel_views.npz`, whose checksum is in `progress.json`. It appears under its name only when it is complete.
"""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difix3d.errors import InputError
from difix3d.novel_views import NovelView, NovelViews
from splat_recon.geometry.cameras import Camera
from splat_recon.scene.scene import Scene
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet

FORMAT = 1
"""Version of the layout."""

NOVEL_VIEWS = "novel_views.npz"


def save_progress(folder: Path, trainer: SplatTrainer, novel: NovelViews | None, *, num_rounds_done: int) -> None:
    """Write a checkpoint; a folder of this name is replaced once the new one is complete."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    trainer.save(part / "splat")
    state: dict[str, Any] = {"format": FORMAT, "step": trainer.step, "num_rounds_done": num_rounds_done}
    if novel is not None:
        state["round_index"] = novel.round_index
        state["references"] = [view.reference_name for view in novel.views]
        np.savez(part / NOVEL_VIEWS, **_novel_arrays(novel))  # pyright: ignore[reportArgumentType]
        state["sha256"] = _sha256(part / NOVEL_VIEWS)
    (part / "progress.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    for path in part.glob("*.*"):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def load_splat(folder: Path, scene: Scene, views: ViewSet | ViewMixture, *, device: str) -> SplatTrainer:
    """The splat's training, to go on with."""
    return SplatTrainer.load(folder / "splat", scene, views, device=device)


def load_novel_views(folder: Path, *, num_rounds: int) -> tuple[NovelViews | None, int]:
    """The novel views of a checkpoint and the number of rounds that were done; on the CPU.

    Raises:
        InputError: A file is missing or damaged, or the run had more rounds than this one plans.
    """
    try:
        state = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        if state.get("format") != FORMAT or state["num_rounds_done"] > num_rounds:
            raise InputError(f"checkpoint {folder} is of another run: it has {state.get('num_rounds_done')} rounds")
        if "references" not in state:
            return None, state["num_rounds_done"]
        if _sha256(folder / NOVEL_VIEWS) != state["sha256"]:
            raise InputError(f"checkpoint {folder}: {NOVEL_VIEWS} is damaged, its checksum differs")
        with np.load(folder / NOVEL_VIEWS, allow_pickle=False) as arrays:
            views = [_novel_view(arrays, index, name) for index, name in enumerate(state["references"])]
    except (OSError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InputError(f"checkpoint {folder} cannot be read ({error}): resume from another one") from error
    return NovelViews(round_index=state["round_index"], views=tuple(views)), state["num_rounds_done"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _novel_arrays(novel: NovelViews) -> dict[str, np.ndarray]:
    arrays = {}
    for index, view in enumerate(novel.views):
        arrays[f"{index}.T_world_cam"] = view.camera.T_world_cam
        arrays[f"{index}.K"] = view.camera.K
        for name in ("rendered", "fixed", "alpha"):
            arrays[f"{index}.{name}"] = getattr(view, name).cpu().numpy()
    return arrays


def _novel_view(arrays: "np.lib.npyio.NpzFile", index: int, reference_name: str) -> NovelView:
    rendered, fixed, alpha = (torch.from_numpy(arrays[f"{index}.{name}"]) for name in ("rendered", "fixed", "alpha"))
    height, width = rendered.shape[:2]
    camera = Camera(T_world_cam=arrays[f"{index}.T_world_cam"], K=arrays[f"{index}.K"], width=width, height=height)
    return NovelView(camera=camera, reference_name=reference_name, rendered=rendered, fixed=fixed, alpha=alpha)
