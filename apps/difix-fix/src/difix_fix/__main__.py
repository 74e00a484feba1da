"""Parse, fix, show progress, and print what was written."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from difix_fix.cli import FixSettings
from difix_model.errors import InputError
from difix_model.files import FixJob, plan_job


def main(arguments: list[str] | None = None) -> int:
    """Run `difix-fix` and return its exit code: 0, or 2 for bad input.

    Args:
        arguments: The command line after the command's name; None takes it from the process.
    """
    try:
        settings = tyro.cli(FixSettings, args=arguments, prog="difix-fix", config=(tyro.conf.FlagCreatePairsOff,))
        job = plan_job(settings.input, settings.out, settings.reference)
        _run(settings, job)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(_written(settings, job))
    return 0


def _run(settings: FixSettings, job: FixJob) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with console.status("Loading the network"):
        # Here, after everything that can be said without it, torch is loaded.
        from difix_model.fix_files import num_items, open_pipeline, run_job

        pipeline = open_pipeline(
            settings.model, base=settings.base, device=settings.device, batch_size=settings.batch_size
        )
    columns = (TextColumn("Fixing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("fixing", total=num_items(job))
        for finished in run_job(job, pipeline, strength=settings.strength):
            bars.advance(task, finished)


def _written(settings: FixSettings, job: FixJob) -> Path:
    return settings.out if settings.input.is_dir() else job.outputs[0]


if __name__ == "__main__":
    sys.exit(main())
