"""The rows of the paper's ablation on one scene: each part of the method added to the one before.

plain: photos only. fix only: the plain splat's renders are fixed. one shot: one round, straight to the targets.
progressive: rounds that come nearer step by step. + final fix: the progressive splat's renders are fixed as well.
All of it by two runs of the comparison; both can be stopped and taken up again. With several seeds it is repeated with
each, and a row holds the mean, its spread over the seeds, and the gain over the plain splat of the same seed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from difix3d.enhance.renderer import EnhancedRenderer
from difix3d.errors import InputError
from difix3d.evaluation.consistency import consistency
from difix3d.fixers.opening import open_fixer
from difix3d.loop.targets import path_poses
from difix3d.queue.scene_task import SceneTask
from difix3d.queue.scenes import is_finished
from difix3d.run.experiment import Experiment
from difix3d.run.run_folder import RunFolder
from difix3d.run.scene import load_scene
from difix3d.run.settings import RunSettings
from splat_recon.io.images import to_u8
from splat_recon.splat_model import SplatModel

FORMAT = "difix3d-ablation"

ROWS = {
    "plain": ("progressive", "plain"),
    "fix only": ("progressive", "plain_fixed"),
    "one shot": ("one_shot", "loop"),
    "progressive": ("progressive", "loop"),
    "progressive + final fix": ("progressive", "loop_fixed"),
}
"""Each row's run and variant."""

STRAIGHT = 1e6
"""Length of a step, in extents, that no target is farther than."""

NUM_FRAMES = 36
"""Frames along the captured views on which consistency is measured."""


SCORES = ("psnr", "ssim", "lpips", "flip", "gain")


def ablation(
    settings: RunSettings, out: Path, *, frames: int = NUM_FRAMES, seeds: Sequence[int] = ()
) -> Iterator[tuple[str, Any]]:
    """Do both runs, and yield the run's name with each `experiment.Progress`; results are in `out/ablation.json`.

    Args:
        settings: The progressive run; the one-shot run differs in one round and a step without limit only.
        out: Folder of both runs, or of a folder with both for each seed; finished ones are kept, stopped ones go on.
        frames: Frames for the consistency of each row; fewer than 2 leave it out.
        seeds: Repeat all with each of these; none: only with that of the settings, in `out` itself.

    Raises:
        InputError: The scene cannot be used, a seed stands twice, or `out` holds other runs.
    """
    # The rows are about rounds, also with so few photos that a run would distill.
    settings = replace(settings, loop="rounds")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"every seed counts once: got {', '.join(map(str, seeds))}")
    folders = {seed: out / f"seed_{seed}" for seed in seeds} or {settings.seed: out}
    for seed, folder in folders.items():
        for name, progress in _runs(replace(settings, seed=seed), folder):
            yield f"{name}, seed {seed}" if seeds else name, progress
    RunFolder(out).write_json("ablation.json", _content(settings, folders, frames))


def _runs(settings: RunSettings, out: Path) -> Iterator[tuple[str, Any]]:
    rounds = replace(settings.rounds, num_rounds=1)
    one_shot = replace(settings, rounds=rounds, stepping=replace(settings.stepping, step_distance=STRAIGHT))
    runs = {"progressive": settings, "one_shot": one_shot}
    for name, asked in runs.items():
        run = RunFolder(out / name)
        resume = (run.path / "config.json").is_file()
        if resume and RunSettings.from_dict(run.read_settings()) != asked:
            raise InputError(f"{run.path} was run with other settings: name another --out")
        if is_finished(SceneTask(name=name, settings=asked, folder=run.path)):
            continue
        experiment = Experiment(asked, run, resume=resume)
        for progress in experiment.run():
            yield name, progress


def _content(settings: RunSettings, folders: Mapping[int, Path], frames: int) -> dict[str, Any]:
    by_seed = {seed: _rows(folder, frames) for seed, folder in folders.items()}
    rows = {row: over_seeds({seed: rows[row] for seed, rows in by_seed.items()}) for row in ROWS}
    first = next(iter(folders.values())) / "progressive"
    metrics = _json(first / "metrics.json")
    reasons = {"fid": "FID needs Inception's weights and an extra that this project does not have"}
    if any(row["lpips"] is None for row in rows.values()):
        reasons["lpips"] = "LPIPS is left out: its backbone is not on this machine"
    resolved = _json(first / "config.json")["resolved"]
    return {
        "format": FORMAT,
        "scene": settings.scene or "the generated demo scene",
        "num_views": len(metrics["per_view"]),
        "saw_test_poses": metrics["saw_test_poses"],
        "settings": {key: value for key, value in resolved.items() if key != "seed"},
        "seeds": list(folders),
        "fid": None,
        "reasons": reasons,
        "rows": rows,
    }


def _rows(out: Path, frames: int) -> dict[str, dict[str, Any]]:
    """The rows of one seed."""
    metrics = {run: _json(out / run / "metrics.json") for run in ("progressive", "one_shot")}
    films = _Films(out, _json(out / "progressive" / "config.json")["resolved"], frames) if frames >= 2 else None
    rows = {}
    for row, (run, variant) in ROWS.items():
        scores = metrics[run]["variants"][variant]
        rows[row] = {
            **{key: scores[key] for key in ("psnr", "ssim", "lpips", "flip")},
            "gain": scores["psnr"] - metrics["progressive"]["variants"]["plain"]["psnr"],
            "consistency": None if films is None else films.consistency(run, variant),
        }
    return rows


def over_seeds(by_seed: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread (standard deviation of the sample) over the seeds; with one seed just its row."""
    rows = list(by_seed.values())
    if len(rows) == 1:
        return rows[0]
    values: dict[str, list[Any]] = {key: [row.get(key) for row in rows] for key in SCORES}
    known = {key: some for key, some in values.items() if None not in some}
    return {
        **{key: statistics.fmean(known[key]) if key in known else None for key in SCORES},
        "spread": {key: statistics.stdev(some) for key, some in known.items()},
        "consistency": _mean_consistency([row["consistency"] for row in rows]),
        "by_seed": {str(seed): row for seed, row in by_seed.items()},
    }


def _mean_consistency(found: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    if any(one is None for one in found):
        return None
    given = [one for one in found if one is not None]
    medians = [one["median_distance"] for one in given if one["median_distance"] is not None]
    return {
        **given[0],
        "consistent_fraction": statistics.fmean(one["consistent_fraction"] for one in given),
        "fractions": {
            limit: statistics.fmean(one["fractions"][limit] for one in given) for limit in given[0]["fractions"]
        },
        "median_distance": statistics.fmean(medians) if medians else None,
        "num_pairs": sum(one["num_pairs"] for one in given),
        "num_matches": sum(one["num_matches"] for one in given),
    }


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


class _Films:
    """A few frames along the captured views, of each splat, as it is and fixed."""

    def __init__(self, out: Path, resolved: dict[str, Any], frames: int) -> None:
        self.out = out
        settings = RunSettings.from_dict(resolved)
        loaded = load_scene(settings)
        self.device = settings.device if settings.device != "auto" else "cpu"
        self.fixer = open_fixer(settings.fixer, device=self.device)
        self.captured = loaded.scene.select(loaded.split.train)
        self.extent = loaded.scene.extent or 1.0
        self.T_scene_colmap = loaded.scene.T_scene_colmap
        poses = path_poses(np.stack([view.camera.T_world_cam for view in self.captured]), frames, extent=self.extent)
        self.cameras = [self.captured[0].camera.with_pose(pose) for pose in poses]

    def consistency(self, run: str, variant: str) -> dict[str, Any]:
        """Of one row."""
        name = variant.removesuffix("_fixed")
        splats = SplatModel.of_file(self.out / run / f"{name}.ply", device=self.device)
        render = _InScene(splats, self.T_scene_colmap)
        if variant.endswith("_fixed"):
            render = EnhancedRenderer(render, self.fixer, self.captured, extent=self.extent)
        return consistency([to_u8(render(camera)) for camera in self.cameras], self.cameras)


class _InScene:
    """Renders a splat in COLMAP's frame for a camera in the scene's."""

    def __init__(self, splats: SplatModel, T_scene_colmap: np.ndarray) -> None:
        self.splats = splats
        self.T_colmap_scene = np.linalg.inv(T_scene_colmap)

    def __call__(self, camera: Any) -> Any:
        from splat_render.poses import transform_camera

        return self.splats.render(transform_camera(self.T_colmap_scene, camera)).rgb
