"""Runs of many scenes: those that are finished are skipped, those that were stopped go on, failures stop nothing.

Every scene has a folder of its own in the queue's folder, with all that a single run writes. `summary.json` and
`summary.html` have the result of each.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from difix3d.errors import InputError, as_input_error
from difix3d.queue.scene_task import RunOutcome, SceneTask
from difix3d.queue.summary import write_summary
from difix3d.run.run_folder import RunFolder
from difix3d.run.settings import MAY_CHANGE, RunSettings
from output_files import write_text_whole
from splat_recon.io.layouts import check_scene_folder as check_scene_folder
from splat_recon.io.layouts import layout_of

FAILURES = "failed"
"""Folder of the tracebacks of scenes that failed."""


def scene_folders(folder: Path) -> list[Path]:
    """The scenes in a folder, by name: its subfolders of any layout that is read."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: expected a folder of scenes")
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_scene(path)]
    if not found:
        hint = " (it is a scene itself: use --scene)" if _is_scene(folder) else ""
        raise InputError(f"no subfolder of {folder} is a scene (images/ and sparse/0/, or transforms.json){hint}")
    return found


def _is_scene(folder: Path) -> bool:
    return layout_of(folder) is not None


def scene_tasks(folder: Path, out: Path, settings: RunSettings) -> list[SceneTask]:
    """A task for every scene in a folder, all with the same settings.

    Raises:
        InputError: There are none, or `out` holds runs of them that were made with other settings.
    """
    tasks = [
        SceneTask(name=path.name, settings=replace(settings, scene=str(path)), folder=out / path.name)
        for path in scene_folders(folder)
    ]
    problems = [problem for task in tasks if (problem := _other_settings(task))]
    if problems:
        raise InputError("; ".join(problems[:10]) + ": name another --out")
    return tasks


def _other_settings(task: SceneTask) -> str | None:
    run = RunFolder(task.folder)
    if not (run.path / "config.json").is_file():
        return None
    stored, asked = RunSettings.from_dict(run.read_settings()).flat(), task.settings.flat()
    other = sorted(name for name in asked if name not in {"scene", *MAY_CHANGE} and stored[name] != asked[name])
    return f"{task.folder} was run with another {', '.join(other)}" if other else None


def run_queue(
    tasks: Sequence[SceneTask],
    out: Path,
    *,
    num_processes: int = 1,
    ray_address: str | None = None,
    on_progress: Callable[[str, Any], None] | None = None,
) -> Generator[RunOutcome, None, None]:
    """Do all tasks and give the result of each, in the order in which they end; then write the summary.

    When the iterator is closed or interrupted, every run can be taken up again by the same call.

    Args:
        tasks: From `scene_tasks`.
        out: The queue's folder; on a Ray cluster all nodes must see it.
        num_processes: Scenes at a time; with 1, they are done in this process.
        ray_address: None: no Ray. "local": start Ray on this machine. Otherwise a cluster's address.
        on_progress: Receives a scene's name and each `experiment.Progress`, where scenes are done in this process.

    Raises:
        InputError: Ray is not installed or does not answer, or the folder cannot be written.
    """
    tasks = [replace(task, folder=task.folder.resolve()) for task in tasks]
    with as_input_error():
        out.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, RunOutcome] = {}
    running = _outcomes(tasks, num_processes, ray_address, on_progress)
    try:
        with closing(running):
            for outcome in running:
                outcomes[outcome.name] = outcome
                write_summary(out, tasks, outcomes)
                yield outcome
    finally:
        write_summary(out, tasks, outcomes)


def _outcomes(
    tasks: Sequence[SceneTask],
    num_processes: int,
    ray_address: str | None,
    on_progress: Callable[[str, Any], None] | None,
) -> Generator[RunOutcome, None, None]:
    unfinished = []
    for task in tasks:
        if is_finished(task):
            yield RunOutcome(name=task.name, was_finished=True)
        else:
            unfinished.append(task)
    if ray_address is not None:
        from difix3d.queue.ray_cluster import on_ray

        gpus = int(any(task.settings.device == "cuda" for task in tasks))
        made = on_ray(unfinished, run_task, died=_died, address=ray_address, num_processes=num_processes, gpus=gpus)
        yield from (_visible(outcome, unfinished) for outcome in made)
    elif num_processes > 1:
        from difix3d.queue.local_processes import in_processes

        yield from in_processes(unfinished, run_task, died=_died, num_processes=num_processes)
    else:
        for task in unfinished:
            yield run_task(task, None if on_progress is None else partial(on_progress, task.name))


def is_finished(task: SceneTask) -> bool:
    """Whether a run has written its last file."""
    return (task.folder / "metrics.json").is_file() and (task.folder / "report.html").is_file()


def run_task(task: SceneTask, on_progress: Callable[[Any], None] | None = None) -> RunOutcome:
    """Do one scene from the start, or from its newest checkpoint; an error becomes part of the outcome.

    Args:
        on_progress: Receives every `experiment.Progress`; a KeyboardInterrupt from it is passed on after a checkpoint.
    """
    from difix3d.run.experiment import Experiment

    report = task.folder.parent / FAILURES / f"{task.name}.txt"
    experiment = None
    try:
        run = RunFolder(task.folder)
        experiment = Experiment(task.settings, run, resume=(run.path / "config.json").is_file())
        for progress in experiment.run():
            if on_progress is not None:
                on_progress(progress)
    except KeyboardInterrupt:
        if experiment is not None and experiment.prepared and not experiment.finished:
            experiment.save()
        raise
    # Whatever is wrong with one scene must not cost the others; it is reported at the end.
    except Exception as error:
        write_text_whole(report, traceback.format_exc())
        sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return RunOutcome(name=task.name, error=sentence)
    report.unlink(missing_ok=True)
    return RunOutcome(name=task.name)


def _died(task: SceneTask, how: str) -> RunOutcome:
    return RunOutcome(name=task.name, error=how)


def _visible(outcome: RunOutcome, tasks: Sequence[SceneTask]) -> RunOutcome:
    """An outcome of another machine, with an error if its files are not to be seen here."""
    task = next(task for task in tasks if task.name == outcome.name)
    if outcome.error is None and not is_finished(task):
        error = f"it was run on another node, but is not in {task.folder}: give an --out that all nodes share"
        return replace(outcome, error=error)
    return outcome
