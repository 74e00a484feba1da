"""Parse, run, show progress, and tell how it ended by the exit code."""

import logging
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import tyro

from difix3d.errors import InputError
from difix3d.queue.scenes import check_scene
from difix3d.run.run_folder import RunFolder, newest_run, numbered
from difix3d.run.settings import RunSettings
from difix3d_train_app.cli import TrainCommand

if TYPE_CHECKING:
    from rich.console import Console

PHASES = {
    "prepare": "Preparing",
    "stereo": "Matching photos",
    "train": "Training",
    "compare": "Comparing",
    "film": "Filming",
    "report": "Reporting",
}
"""What the phases of a run are called on the screen; a line fits into 80 columns."""

MAY_CHANGE = {"device", "checkpoint_every", "fixer_offload", "image_memory"}
"""Settings that a resumed run may have differently."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-train` and return its exit code: 0, 2 for bad input, 128 + signal when stopped."""
    command = tyro.cli(TrainCommand, args=arguments, prog="difix3d-train", config=(tyro.conf.FlagCreatePairsOff,))
    try:
        if command.scenes is not None:
            from difix3d_train_app.scenes import run_scenes

            with _signals() as received:
                return run_scenes(command, received)
        return _run(command)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(command: TrainCommand) -> int:
    settings = command.run
    if command.resume:
        folder = RunFolder(command.out or newest_run(command.default_out))
        settings = _settings_of_run(folder, settings)
    else:
        folder = RunFolder(command.out or numbered(command.default_out))
        folder.check_free()
    if settings.scene is not None:
        check_scene(Path(settings.scene))
    print(f"{'Resuming' if command.resume else 'Writing to'} {folder.path}", flush=True)

    # Here, after everything that can be said without it, torch is loaded.
    from difix3d.run.experiment import Experiment

    experiment = Experiment(settings, folder, resume=command.resume)
    with _signals() as received:
        _show(experiment.run(stop_at=command.stop_at), received)
    if received:
        if experiment.prepared:
            experiment.save()
            print(f"Stopped and saved at step {experiment.step}. Go on with: {_resume_command(folder.path)}")
        return 128 + received[0]
    if not experiment.finished:
        print(f"Stopped at step {experiment.step} as asked. Go on with: {_resume_command(folder.path)}")
        return 0
    print(experiment.verdict)
    print(experiment.time.sentence())
    print(folder.path / "report.html")
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
            f"--{name.replace('_', '-')} {value} contradicts the run in {folder.path}, which has "
            f"{getattr(stored, name)}: leave it out, or start a new run with another --out"
        )
    return stored


def _resume_command(folder: Path) -> str:
    return f"difix3d-train --out {shlex.quote(str(folder))} --resume"


def _show(steps: Iterator, received: list[int]) -> None:
    """Draw a bar per phase while the run proceeds, until it ends or a signal has come."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns) as bars, _warnings_on(bars.console):
        for progress in steps:
            if progress.phase not in tasks:
                tasks[progress.phase] = bars.add_task(PHASES[progress.phase], note="")
            bars.update(tasks[progress.phase], completed=progress.done, total=progress.total, note=progress.note)
            if received:
                return


@contextmanager
def _warnings_on(console: "Console") -> Iterator[None]:
    """Show what the libraries warn of above the bars."""

    class ConsoleHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(f"note: {record.getMessage()}", style="dim", highlight=False, markup=False)

    handler = ConsoleHandler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying of them; a second Ctrl-C is as deadly as ever."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
