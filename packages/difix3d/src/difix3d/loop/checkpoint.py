"""A run of the progressive method on disk: the splat's checkpoint and the novel views it was training on.

A folder holds `splat/` (written by the splat's trainer), `progress.json` and, once a round is done,
`novel_views.npz` with the pool, whose checksum is in `progress.json`. Where views are held back it also holds
`watch.json` with all checks, `probe/`, the splat that does without them, `control/`, plain training without them where
it is compared with that, and `states/`, both splats as they were when there was something to go back to.
It appears under its name only when it is complete.
"""

import hashlib
import json
import os
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difix3d.errors import InputError
from difix3d.loop.novel_views import NovelView, NovelViews, Pool
from difix_model.gate.verdict import FixVerdict
from splat_recon.scene.scene import Scene
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet
from splat_render.cameras import Camera

FORMAT = 3
"""Version of the layout."""

NOVEL_VIEWS = "novel_views.npz"


def save_progress(
    folder: Path, trainer: SplatTrainer, pool: Pool, *, num_rounds_done: int, progress: float = 0.0
) -> None:
    """Write a checkpoint; a folder of this name is replaced once the new one is complete."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    trainer.save(part / "splat")
    state: dict[str, Any] = {"format": FORMAT, "step": trainer.step, "num_rounds_done": num_rounds_done}
    state["progress"] = progress
    if pool:
        state["rounds"] = [
            {
                "round_index": novel.round_index,
                "views": [{"reference": view.reference_name, "verdict": asdict(view.verdict)} for view in novel.views],
            }
            for novel in pool
        ]
        arrays = {name: array for age, novel in enumerate(pool) for name, array in _novel_arrays(novel, age).items()}
        np.savez(part / NOVEL_VIEWS, **arrays)  # pyright: ignore[reportArgumentType]
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


def load_pool(folder: Path) -> tuple[Pool, int, float]:
    """The novel views of a checkpoint (on the CPU), the number of rounds that were done, and their progress.

    Raises:
        InputError: A file is missing or damaged.
    """
    try:
        state = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        if state.get("format") != FORMAT:
            raise InputError(f"checkpoint {folder} is of another version: expected {FORMAT}, got {state.get('format')}")
        num_rounds_done, progress = int(state["num_rounds_done"]), float(state["progress"])
        pool = []
        if "rounds" in state:
            if _sha256(folder / NOVEL_VIEWS) != state["sha256"]:
                raise InputError(f"checkpoint {folder}: {NOVEL_VIEWS} is damaged, its checksum differs")
            with np.load(folder / NOVEL_VIEWS, allow_pickle=False) as arrays:
                for age, round_ in enumerate(state["rounds"]):
                    listed = enumerate(round_["views"])
                    views = tuple(_novel_view(arrays, f"{age}.{index}", facts) for index, facts in listed)
                    pool.append(NovelViews(round_index=round_["round_index"], views=views))
    except (OSError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InputError(f"checkpoint {folder} cannot be read ({error}): resume from another one") from error
    return tuple(pool), num_rounds_done, progress


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _novel_arrays(novel: NovelViews, age: int) -> dict[str, np.ndarray]:
    arrays = {}
    for index, view in enumerate(novel.views):
        arrays[f"{age}.{index}.T_world_cam"] = view.camera.T_world_cam
        arrays[f"{age}.{index}.K"] = view.camera.K
        for name in ("rendered", "fixed", "alpha"):
            arrays[f"{age}.{index}.{name}"] = getattr(view, name).cpu().numpy()
        if view.confidence is not None:
            arrays[f"{age}.{index}.confidence"] = view.confidence.cpu().numpy()
    return arrays


def _novel_view(arrays: "np.lib.npyio.NpzFile", key: str, facts: dict[str, Any]) -> NovelView:
    rendered, fixed, alpha = (torch.from_numpy(arrays[f"{key}.{name}"]) for name in ("rendered", "fixed", "alpha"))
    height, width = rendered.shape[:2]
    camera = Camera(T_world_cam=arrays[f"{key}.T_world_cam"], K=arrays[f"{key}.K"], width=width, height=height)
    return NovelView(
        camera=camera,
        reference_name=facts["reference"],
        rendered=rendered,
        fixed=fixed,
        alpha=alpha,
        verdict=FixVerdict(**facts["verdict"]),
        confidence=torch.from_numpy(arrays[f"{key}.confidence"]) if f"{key}.confidence" in arrays else None,
    )
