"""Parse, run, show progress, and tell how it ended by the exit code."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from commands import collected, ended, goes_on, next_line, run_command
from difix3d import InputError, RunFolder, RunSettings
from difix3d.queue.scenes import check_scene_folder
from difix3d.run import photos
from difix3d.run.run_folder import PHOTOS, newest_run, numbered
from difix3d.viewer.training import check_viewer
from difix3d_train_app.cli import DISTRIBUTION, GROUPS, RunFlags, TrainCommand, config_of, read_config
from difix3d_train_app.progress import run_bars
from difix3d_train_app.resuming import resume_command, settings_of_run, source_of

if TYPE_CHECKING:
    from difix3d import Experiment
    from difix3d.run.estimate import RunEstimate

MIN_STEPS = 100
"""With fewer steps left, measuring the machine takes longer than it tells."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-train` and return its exit code: 0, 2 for bad input, 128 + signal when stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(
        TrainCommand,
        _run,
        given,
        prog="difix3d-train",
        distribution=DISTRIBUTION,
        groups=GROUPS,
        default=partial(_configured, given),
    )


def _configured(given: list[str]) -> TrainCommand | None:
    """The flags of the run that `--config` names."""
    config = config_of(given)
    return None if config is None else TrainCommand(run=RunFlags.of(read_config(config)))


def _run(command: TrainCommand) -> int:
    if command.photos is not None:
        # The scene of another run, in --config, is not that of these photos.
        command = replace(command, run=replace(command.run, scene=None))
    return _run_one(command) if command.scenes is None else _run_scenes(command)


def _run_scenes(command: TrainCommand) -> int:
    from difix3d_train_app.scenes import run_scenes

    with collected() as received:
        return run_scenes(command, received)


def _run_one(command: TrainCommand) -> int:
    settings = RunSettings.of(command.run)
    place = command.out or (newest_run if command.resume else numbered)(command.default_out)
    folder = RunFolder(place)
    resumed = goes_on(place, resume=command.resume, traces=("config.json", "checkpoints", PHOTOS))
    source = source_of(command, folder, resumed=resumed)
    if resumed:
        settings = settings_of_run(folder, settings)
    else:
        if photos.recorded(folder) is not None:
            raise InputError(f"{folder.path} holds a run already: name another --out, or go on with --resume")
        folder.check_free()
    if settings.scene is not None:
        check_scene_folder(Path(settings.scene))
    if command.viewer:
        check_viewer()
    print(f"{'Resuming' if resumed else 'Writing to'} {folder.path}", flush=True)

    estimate: RunEstimate | None = None
    if source is not None:
        if not resumed:
            photos.record(folder, source, settings)
        if not photos.has_cameras(folder):
            from difix3d_train_app.estimating import estimated
            from difix3d_train_app.photos import find_cameras

            estimate = estimated(settings, photos.num_photos(source), from_photos=True)
            stopped_by = find_cameras(folder, source, settings, estimate)
            if stopped_by:
                return stopped_by
            # How many frames a video gives is known only now: what follows is foreseen once more.
            estimate = None if source.is_file() else estimate
        settings = photos.scene_settings(settings, folder)

    # Here, after everything that can be said without it, torch is loaded.
    from difix3d import Experiment

    experiment = Experiment(settings, folder, resume=resumed and (folder.path / "config.json").is_file())
    with collected() as received:
        _show(command, experiment, estimate, received)
    if received:
        if experiment.prepared:
            experiment.save()
            again = resume_command(folder.path)
            print(f"Stopped and saved at step {experiment.step}. Go on with: {again}", file=sys.stderr)
        return 128 + received[0]
    if not experiment.finished:
        again = resume_command(folder.path)
        print(f"Stopped at step {experiment.step} as asked. Go on with: {again}", file=sys.stderr)
        return 0
    print(experiment.verdict)
    print(experiment.decision)
    if experiment.inputs.has_fixer:
        print(experiment.time.sentence())
    page = folder.path / "scene.html"
    ended(folder.path / "report.html", "splat-recon", "export", "--splat", folder.path, "--to", page)
    return 0


def _show(command: TrainCommand, experiment: Experiment, estimate: RunEstimate | None, received: list[int]) -> None:
    """Draw bars while the run proceeds, until it ends or a signal has come."""
    steps = experiment.run(stop_at=command.stop_at)
    with run_bars(None) as bars:
        for progress in steps:
            bars.show(progress)
            if received:
                return
            if experiment.prepared:
                break
    if not experiment.prepared:
        return
    if estimate is None and (experiment.max_steps - experiment.step) >= MIN_STEPS:
        from difix3d_train_app.estimating import estimated

        what = "This run" if command.photos is None else "The rest of this run"
        estimate = estimated(experiment.asked, len(experiment.inputs.scene.names), from_photos=False, what=what)
    with ExitStack() as stack:
        viewer = _viewer(command, experiment, stack)
        bars = stack.enter_context(run_bars(estimate))
        for progress in steps:
            bars.show(progress)
            if viewer is not None and progress.phase == "train":
                viewer.observe(experiment.in_training)
            if received:
                return


def _viewer(command: TrainCommand, experiment: Experiment, stack: ExitStack):
    """The page that shows the training, where it was asked for; else a word on how to have one."""
    if not command.viewer:
        look = next_line("splat-recon", "view", "--splat", experiment.folder.path, extra="viewer")
        print(f"To look at it meanwhile: {look}", file=sys.stderr)
        return None
    from difix3d.viewer.training import training_viewer

    viewer = training_viewer(experiment.in_training, host=command.viewer_host, port=command.viewer_port)
    stack.enter_context(viewer)
    print(f"Watch the training at {viewer.url}", file=sys.stderr, flush=True)
    return viewer


if __name__ == "__main__":
    sys.exit(main())
