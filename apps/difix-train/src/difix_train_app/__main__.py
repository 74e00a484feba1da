"""Parse, run, show progress, and tell how it ended by the exit code."""

import json
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import tyro

from difix_train.errors import InputError, NonFiniteLossError
from difix_train.settings import EvalSettings, ExportSettings, RunSettings
from difix_train_app.cli import Command
from output_files import unshared, write_text_whole

if TYPE_CHECKING:
    from difix_train.evaluate import PairEvaluation
    from difix_train.run import TrainingRun

IS_MAIN = os.environ.get("RANK", "0") == "0"
"""Whether this is the process that talks, of those that `accelerate launch` started."""

STEPS_BETWEEN_UPDATES = 5
"""Optimizer steps between two looks at the progress bar and at signals."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix-train` and return its exit code: 0, 2 for bad input, 1 when training breaks down, 128 + signal."""
    options = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        command = tyro.cli(Command, args=arguments, prog="difix-train", config=options)  # type: ignore[call-overload]
        if isinstance(command, EvalSettings):
            return _evaluate(command)
        if isinstance(command, ExportSettings):
            return _export(command)
        return _train(command)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train(settings: RunSettings) -> int:
    existed = settings.out.exists()
    settings.check()
    if not IS_MAIN:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            return _train_checked(settings)
    try:
        with _log_to(settings.out / "log.txt"):
            return _train_checked(settings)
    except InputError:
        if not existed and {path.name for path in settings.out.iterdir()} <= {"log.txt"}:
            shutil.rmtree(settings.out)
        raise


def _train_checked(settings: RunSettings) -> int:
    print("Loading pairs and weights", flush=True)

    # Here, after everything that can be said without it, torch is loaded.
    from difix_train.run import open_run

    run = open_run(settings)
    with _signals() as received, closing(run):
        _show(run, received)
        stopped_by = run.stop_requested(received)
        if stopped_by:
            run.save()
    if run.latest_evaluation is not None:
        _print_table(run.latest_evaluation)
    step = run.step
    if run.loop.seconds:
        print(f"{run.loop.waiting_fraction:.1%} of the training time went into waiting for images.")
    if stopped_by:
        print(f"Stopped and saved at step {step}. Go on with the same command and --resume.")
        print(run.folder.checkpoint(step))
        return 128 + stopped_by
    if step < settings.config.max_steps:
        print(f"Stopped at step {step} as asked. Go on with the same command and --resume.")
        print(run.folder.checkpoint(step))
        return 0
    print(f"Use it with: difix-fix --model {shlex.quote(str(run.folder.model))}")
    print(run.folder.model)
    return 0


def _evaluate(settings: EvalSettings) -> int:
    settings.check()

    from difix_train.run import evaluate_model

    evaluation = evaluate_model(settings)
    _print_table(evaluation)
    if settings.out is not None:
        write_text_whole(settings.out, json.dumps(evaluation.to_dict(), indent=2) + "\n")
        print(settings.out)
    return 0


def _export(settings: ExportSettings) -> int:
    from difix_train.export import export_run

    print(export_run(settings.run, settings.out, to=settings.to, base=settings.base))
    return 0


def _show(run: "TrainingRun", received: list[int]) -> None:
    """Draw a bar while the run proceeds, until it ends or a signal has come."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("Training"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as bars:
        task = bars.add_task("training", total=run.end, completed=run.step, note="")
        while not run.done and not run.stop_requested(received):
            run.advance(STEPS_BETWEEN_UPDATES)
            history = run.loop.history
            bars.update(task, completed=run.step, note=f"loss {history[-1].loss:.4g}" if history else "")


def _print_table(evaluation: "PairEvaluation") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{evaluation.num_samples} pairs")
    table.add_column("")
    for name in ("PSNR", "SSIM", "LPIPS", "harmed"):
        table.add_column(name, justify="right")
    for name, scores in evaluation.table():
        lpips = "-" if scores.lpips is None else f"{scores.lpips:.4f}"
        harmed = "" if scores.harmed is None else f"{scores.harmed:.0%}"
        table.add_row(name, f"{scores.psnr:.3f}", f"{scores.ssim:.4f}", lpips, harmed)
    console = Console()
    console.print(table)
    if evaluation.uses_reference is not None:
        verdict = "beats" if evaluation.uses_reference else "does not beat"
        console.print(f"The right reference {verdict} both a wrong one and none.")


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Log to a file, and warnings to the screen too."""
    to_file = logging.FileHandler(unshared(path), encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_screen = logging.StreamHandler()
    to_screen.setLevel(logging.WARNING)
    to_screen.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in (to_file, to_screen):
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in (to_file, to_screen):
            root.removeHandler(handler)
            handler.close()


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
