"""Parse, run, show progress, and tell how it ended by the exit code."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from commands import as_flag, collected, ended, goes_on, next_line, outcome_of, parse
from commands.help import parameters_of
from difix3d.errors import InputError
from difix3d.queue.scenes import check_scene
from difix3d.run.run_folder import RunFolder, newest_run, numbered
from difix3d.run.settings import MAY_CHANGE, RunSettings
from difix3d_train_app.cli import DISTRIBUTION, GROUPS, TrainCommand

if TYPE_CHECKING:
    from rich.progress import TaskID

PHASES = {
    "prepare": "Preparing",
    "stereo": "Matching photos",
    "train": "Training",
    "compare": "Comparing",
    "film": "Filming",
    "report": "Reporting",
}
"""What the phases of a run are called on the screen; a line fits into 80 columns."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-train` and return its exit code: 0, 2 for bad input, 128 + signal when stopped."""
    command = parse(TrainCommand, arguments, prog="difix3d-train", distribution=DISTRIBUTION, groups=GROUPS)
    run = _run if command.scenes is None else _run_scenes
    return outcome_of(partial(run, command), parameters=parameters_of(TrainCommand))


def _run_scenes(command: TrainCommand) -> int:
    from difix3d_train_app.scenes import run_scenes

    with collected() as received:
        return run_scenes(command, received)


def _run(command: TrainCommand) -> int:
    settings = command.run
    place = command.out or (newest_run if command.resume else numbered)(command.default_out)
    folder = RunFolder(place)
    resumed = goes_on(place, resume=command.resume, traces=("config.json", "checkpoints"))
    if resumed:
        settings = _settings_of_run(folder, settings)
    else:
        folder.check_free()
    if settings.scene is not None:
        check_scene(Path(settings.scene))
    print(f"{'Resuming' if resumed else 'Writing to'} {folder.path}", flush=True)

    # Here, after everything that can be said without it, torch is loaded.
    from difix3d.run.experiment import Experiment

    experiment = Experiment(settings, folder, resume=resumed)
    with collected() as received:
        _show(experiment.run(stop_at=command.stop_at), received)
    if received:
        if experiment.prepared:
            experiment.save()
            print(
                f"Stopped and saved at step {experiment.step}. Go on with: {_resume_command(folder.path)}",
                file=sys.stderr,
            )
        return 128 + received[0]
    if not experiment.finished:
        print(
            f"Stopped at step {experiment.step} as asked. Go on with: {_resume_command(folder.path)}", file=sys.stderr
        )
        return 0
    print(experiment.verdict)
    print(experiment.decision)
    print(experiment.time.sentence())
    page = folder.path / "scene.html"
    ended(folder.path / "report.html", "splat-recon", "export", "--splat", folder.path, "--to", page)
    return 0


def _settings_of_run(folder: RunFolder, given: RunSettings) -> RunSettings:
    """The settings that a run was started with; what is given now must not contradict them."""
    stored = RunSettings.from_dict(folder.read_settings())
    defaults = RunSettings().to_dict()
    for name, value in given.to_dict().items():
        if value in (defaults[name], getattr(stored, name)):
            continue
        if name in MAY_CHANGE:
            stored = replace(stored, **{name: value})
            continue
        raise InputError(
            f"{as_flag(name)} {value} contradicts the run in {folder.path}, which has "
            f"{getattr(stored, name)}: leave it out, or start a new run with another --out"
        )
    return stored


def _resume_command(folder: Path) -> str:
    return next_line("difix3d-train", "--out", folder, "--resume")


def _show(steps: Iterator, received: list[int]) -> None:
    """Draw a bar per phase while the run proceeds, until it ends or a signal has come."""
    from commands.logs import warnings_on
    from commands.progress import progress_bar

    tasks: dict[str, TaskID] = {}
    with progress_bar(percent=True) as bars, warnings_on():
        for progress in steps:
            if progress.phase not in tasks:
                tasks[progress.phase] = bars.add_task(PHASES[progress.phase], note="")
            bars.update(tasks[progress.phase], completed=progress.done, total=progress.total, note=progress.note)
            if received:
                return


if __name__ == "__main__":
    sys.exit(main())
