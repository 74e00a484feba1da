"""A branch of the method on disk, as a checkpoint of train-runs: its novel views, and the splat in a folder `splat`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, from_numpy

from difix3d.errors import InputError
from difix3d.loop.novel_views import NovelView, NovelViews
from difix_model.gate.verdict import FixVerdict
from splat_recon.scene.scene import Scene
from splat_recon.trainer import SplatTrainer
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet
from splat_render.cameras import Camera
from train_runs.checkpoints import read_checkpoint, under, write_checkpoint
from train_runs.errors import InputError as RunError

SPLAT = "splat"
"""Folder of a splat's own checkpoint."""


def write_branch(
    folder: Path, values: Mapping[str, Any], novel: NovelViews | None, trainer: SplatTrainer | None
) -> None:
    """Write a branch; a folder of this name is replaced once the new one is complete.

    Args:
        folder: The branch's own.
        values: What JSON can hold.
        novel: The views of its newest round.
        trainer: Its splat's training; None leaves it out.

    Raises:
        InputError: The folder cannot be written.
    """
    facts = None if novel is None else {"round_index": novel.round_index, "views": [_facts(one) for one in novel.views]}
    tensors = {} if novel is None else {k: v for i, one in enumerate(novel.views) for k, v in _tensors(one, i).items()}
    write_splat = None if trainer is None else lambda part: trainer.save(part / SPLAT)
    try:
        write_checkpoint(folder, {**values, "novel": facts}, tensors, write_more=write_splat)
    except RunError as error:
        raise InputError(str(error)) from error


def read_branch(folder: Path) -> tuple[dict[str, Any], NovelViews | None]:
    """The values and the novel views (on the CPU) of a branch.

    Raises:
        InputError: A file is missing or damaged.
    """
    try:
        found = read_checkpoint(folder)
        facts = found.values["novel"]
        if facts is None:
            return found.values, None
        views = tuple(_novel_view(found.tensors, index, each) for index, each in enumerate(facts["views"]))
        return found.values, NovelViews(round_index=facts["round_index"], views=views)
    except (RunError, KeyError, TypeError) as error:
        raise InputError(f"checkpoint {folder} cannot be read ({error}): resume from another one") from error


def has_splat(folder: Path) -> bool:
    """Whether a branch holds its splat."""
    return (folder / SPLAT).is_dir()


def load_splat(folder: Path, scene: Scene, views: ViewSet | ViewMixture, *, device: str) -> SplatTrainer:
    """The splat's training, to go on with."""
    return SplatTrainer.load(folder / SPLAT, scene, views, device=device)


def _facts(view: NovelView) -> dict[str, Any]:
    return {"reference": view.reference_name, "verdict": asdict(view.verdict)}


def _tensors(view: NovelView, index: int) -> dict[str, Tensor]:
    tensors = {name: getattr(view, name) for name in ("rendered", "fixed", "alpha", "confidence")}
    tensors |= {name: from_numpy(getattr(view.camera, name)) for name in ("T_world_cam", "K")}
    return {f"{index}.{name}": tensor for name, tensor in tensors.items() if tensor is not None}


def _novel_view(tensors: Mapping[str, Tensor], index: int, facts: dict[str, Any]) -> NovelView:
    own = under(f"{index}.", tensors)
    T_world_cam, K = (own.pop(name).numpy() for name in ("T_world_cam", "K"))
    height, width = own["rendered"].shape[:2]
    camera = Camera(T_world_cam=T_world_cam, K=K, width=width, height=height)
    return NovelView(camera=camera, reference_name=facts["reference"], verdict=FixVerdict(**facts["verdict"]), **own)
