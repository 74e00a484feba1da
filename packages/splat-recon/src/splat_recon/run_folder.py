"""The folder of a training run: that of train-runs, with what splats have beside it. Imports no torch.

`cameras.json` (frame and training cameras), `metrics.json` (scores), `evaluations.jsonl` (scores on the way), `images/`
(render beside photo), `point_cloud.ply`, `report.html`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import train_runs.run_folder
from output_files import check_inputs_kept, check_links, check_writable, output_names, write_text_whole
from splat_recon.config_values import flattened
from splat_recon.errors import InputError
from splat_recon.io import cameras_json
from splat_recon.io.json_files import read_json_file
from splat_render.cameras import Camera

if TYPE_CHECKING:
    from splat_recon.scene.scene import Scene

VERSIONED = ("splat-recon", "torch", "numpy", "numba", "gsplat", "pycolmap")
"""Distributions whose versions `config.json` records."""

NOT_COMPARED = ("scene", "stereo")
"""Settings that may change between a run and its continuation: a scene's folder may have moved, and what stereo found
is in the training's own settings."""


SETTINGS = ("scene", "split", "sparse", "max_size")
"""Settings without which a run cannot be scored or drawn."""


class RunFolder(train_runs.run_folder.RunFolder):
    """The folder of train-runs; `metrics` is the training's history."""

    @property
    def cameras(self) -> Path:
        """Frame of the scene and the training cameras."""
        return self.path / "cameras.json"

    @property
    def refined_cameras(self) -> Path:
        """The training cameras as pose refinement left them; only where poses were refined."""
        return self.path / "cameras_refined.json"

    @property
    def first_images(self) -> Path:
        """Renders of some test views before the first step, for the report. No view's picture begins with a dot."""
        return self.images / ".first"

    @property
    def evaluations(self) -> Path:
        """Scores on some test views on the way, one JSON object per line."""
        return self.path / "evaluations.jsonl"

    @property
    def stereo(self) -> Path:
        """The depth maps that the training started from; only where it did."""
        return self.path / "stereo.npz"

    @property
    def stereo_picture(self) -> Path:
        """Photos, believed depths and their confidence."""
        return self.path / "stereo.png"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    @property
    def point_cloud(self) -> Path:
        """The Gaussians in COLMAP's frame."""
        return self.path / "point_cloud.ply"

    def contact_sheet(self, split: str = "test") -> Path:
        """Photos, renders and errors of one side of the split on one picture."""
        return self.path / ("contact_sheet.png" if split == "test" else f"contact_sheet_{split}.png")

    def scores(self, split: str = "test") -> Path:
        """Scores on one side of the split."""
        return self.path / ("metrics.json" if split == "test" else f"metrics_{split}.json")


def picture_names(names: Sequence[str]) -> dict[str, str]:
    """The names of views' pictures in a folder of them, such as `images`, by the names of the views.

    Args:
        names: Of all views of the scene: which names clash must not depend on the views that are written.
    """
    return output_names(names, ending=".png")


def check_start(path: Path, *, resume: bool, scene: Path | None = None) -> RunFolder:
    """The run folder at `path`, before anything is read or computed; the folder is made if it is not there.

    Args:
        resume: Whether to go on with a run that is there.

    Raises:
        InputError: There is a run already and `resume` is false, there is none and it is true, the folder is the
            scene's, a link in it leads elsewhere, or it cannot be written.
    """
    run = RunFolder(Path(path))
    if scene is not None:
        check_apart(run, scene)
    if resume and not run.config.is_file():
        raise InputError(f"there is no run in {path} to resume: leave --resume out to start one, or name its folder")
    if not resume and (run.config.exists() or run.checkpoints.exists()):
        raise InputError(f"{path} holds a run already: add --resume to go on with it, or choose another --out")
    check_own(run.path)
    return run


def check_apart(run: RunFolder, scene: Path) -> None:
    """Refuse to write a run into the folder of its scene, whose photos its pictures would replace."""
    if run.path.exists() and scene.exists() and run.path.samefile(scene):
        raise InputError(f"{run.path} is the scene itself, whose photos would be replaced: choose another --out")


def check_outputs(run: RunFolder, scene: Scene) -> None:
    """Refuse to write pictures and scores of a scene where they would replace what it is read from.

    Raises:
        InputError: They would; nothing is written.
    """
    fixed = (
        *(run.config, run.cameras, run.metrics, run.evaluations, run.report, run.log, run.point_cloud),
        *(each for split in ("test", "train", "all") for each in (run.contact_sheet(split), run.scores(split))),
    )
    pictures = [
        folder / name for name in picture_names(scene.names).values() for folder in (run.images, run.first_images)
    ]
    check_inputs_kept([*fixed, *pictures], scene.sources)


def check_own(folder: Path) -> None:
    """`check_writable` for a folder that is wholly ours: no folder in it may be a link that leads out of it."""
    check_links(folder)
    check_writable(folder)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """`check_own`; a folder that it made is removed again where bad input leaves it empty."""
    existed = folder.exists()
    check_own(folder)
    try:
        yield
    except (InputError, OSError):
        if not existed and not any(folder.iterdir()):
            folder.rmdir()
        raise


def check_same(run: RunFolder, settings: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings.

    Raises:
        InputError: A setting differs; the message names the first ten with both values.
    """
    before, now = flattened(read_settings(run)), flattened(json.loads(json.dumps(settings)))
    problems = [
        f"{name} was {before.get(name)}, is now {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if name not in NOT_COMPARED and before.get(name) != now.get(name)
    ]
    if problems:
        raise InputError.from_problems(
            f"cannot resume {run.path} with other settings (repeat the flags it was started with)", problems
        )


def read_settings(run: RunFolder) -> dict[str, Any]:
    """The settings of a finished or unfinished run.

    Raises:
        InputError: There is no run, or its configuration was written by something else.
    """
    if not run.config.is_file():
        raise InputError(f"there is no run in {run.path}: expected the folder that `train --out` wrote (config.json)")
    settings = read_json(run.config).get("settings")
    if not isinstance(settings, dict) or not set(SETTINGS) <= settings.keys() or not _are_settings(settings):
        raise InputError(f"{run.config} is not the configuration of a `splat-recon train` run: name another --run")
    return settings


def _are_settings(settings: Mapping[str, Any]) -> bool:
    """Whether the settings that a run is read by again are of their kinds."""
    texts = [settings["scene"], settings["split"], settings.get("images", "auto"), settings.get("sparse_model") or ""]
    numbers = [number for name in ("sparse", "max_size") if (number := settings[name]) is not None]
    counts = all(isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in numbers)
    return all(isinstance(text, str) for text in texts) and counts


def write_cameras(
    run: RunFolder, cameras: Mapping[str, Camera], T_scene_colmap: np.ndarray, *, refined: bool = False
) -> None:
    """Write the frame and the cameras, so that rendering and exporting need no photos; refined ones beside them."""
    path = run.refined_cameras if refined else run.cameras
    write_json(path, cameras_json.to_content(cameras, T_scene_colmap))


def read_cameras(run: RunFolder) -> tuple[dict[str, Camera], np.ndarray]:
    """The training cameras by name, and the similarity from COLMAP's frame to theirs."""
    try:
        return cameras_json.from_content(read_json(run.cameras))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{run.cameras} does not hold the cameras of a run: train again") from error


def check_same_scene(run: RunFolder, name: str, view_names: Sequence[str], T_scene_colmap: np.ndarray) -> None:
    """Refuse a scene that is not the run's: scores on its photos would mean nothing, and would replace the run's."""
    cameras, T_run_colmap = read_cameras(run)
    missing = sorted(cameras.keys() - set(view_names))
    # In the training's units: coordinates of maps are so large that a relative tolerance would let any scene pass.
    T_run_scene = T_run_colmap @ np.linalg.inv(T_scene_colmap)
    if missing or not np.allclose(T_run_scene, np.eye(4), rtol=0, atol=1e-3):
        lacking = f" (it lacks {missing[0]})" if missing else ""
        raise InputError(f"the scene {name} is not the one that {run.path} was trained on{lacking}: name that one")


def check_same_split(run: RunFolder, train: Sequence[str]) -> None:
    """Refuse a split that is not the run's: photos that it was trained on would count as held out.

    Args:
        train: Names of the training views as the scene is split now.
    """
    differing = sorted(read_cameras(run)[0].keys() ^ set(train))
    if differing:
        raise InputError(
            f"the scene is not split as it was when {run.path} was trained ({len(differing)} photos changed sides, "
            f"{differing[0]} for one): put the splits.json or list of that time back"
        )


def read_evaluations(run: RunFolder, *, until_step: int | None = None) -> list[dict[str, Any]]:
    """The lines of `evaluations.jsonl`, up to a step; none where there is no such file, or where it is unreadable."""
    return [
        record
        for record in train_runs.run_folder.read_records(run.evaluations)
        if until_step is None or record["step"] <= until_step
    ]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_text_whole(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return content


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines anew: a resumed run has none beyond the checkpoint it started from."""
    write_text_whole(path, "".join(json.dumps(record) + "\n" for record in records))
