"""A branch of the method as it was: in memory, or on disk as a checkpoint of its novel views with the splat's in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, from_numpy

from difix3d.errors import InputError
from difix3d.loop.novel_views import NovelView, NovelViews
from difix_model.gate.verdict import FixVerdict
from splat_recon.checkpoint import TrainerState
from splat_render.cameras import Camera
from train_runs.checkpoints import read_checkpoint, under, write_checkpoint

SPLAT = "splat"
"""Folder of a splat's own checkpoint."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BranchState:
    """A branch as it was at some step."""

    values: Mapping[str, Any]
    """What JSON can hold."""

    novel: NovelViews | None
    """The views of its newest round; they never change."""

    splat: TrainerState | None
    """Its splat's training; None where that is shared with another and left out."""

    def copied(self) -> BranchState:
        """A copy that the branch no longer changes, in the CPU's memory."""
        return replace(self, splat=None if self.splat is None else self.splat.copied())

    def write(self, folder: Path) -> None:
        """Write a folder of the branch's own; one of this name is replaced once the new one is complete."""
        novel, splat = self.novel, self.splat
        views = () if novel is None else novel.views
        facts = None if novel is None else {"round_index": novel.round_index, "views": [_facts(one) for one in views]}
        tensors = {name: tensor for index, one in enumerate(views) for name, tensor in _tensors(one, index).items()}
        write_splat = None if splat is None else lambda part: splat.write(part / SPLAT)
        write_checkpoint(folder, {**self.values, "novel": facts}, tensors, write_more=write_splat)

    @classmethod
    def read(cls, folder: Path) -> BranchState:
        """What `write` wrote, on the CPU."""
        try:
            found = read_checkpoint(folder)
            facts, novel = found.values["novel"], None
            if facts is not None:
                views = tuple(_novel_view(found.tensors, index, each) for index, each in enumerate(facts["views"]))
                novel = NovelViews(round_index=facts["round_index"], views=views)
        except (InputError, KeyError, TypeError) as error:
            raise InputError(f"checkpoint {folder} cannot be read ({error}): resume from another one") from error
        splat = TrainerState.read(folder / SPLAT) if (folder / SPLAT).is_dir() else None
        return cls(values=found.values, novel=novel, splat=splat)


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
