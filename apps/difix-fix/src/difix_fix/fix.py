"""The command `difix-fix` without a name after it: fix, show progress, and print what was written."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from difix_fix.cli import FixSettings
from difix_model.errors import InputError
from difix_model.files import FixJob, plan_job

DESCRIPTION = """Fix a render, a folder of renders, or a video.

Other commands: "difix-fix convert" turns weights into another format, "difix-fix serve" opens a local page to try
fixing in a browser; each answers --help."""


def main(arguments: list[str]) -> int:
    """Fix, and return the exit code: 0, or 2 for bad input.

    Args:
        arguments: The command line after `difix-fix` or `difix-fix fix`.
    """
    try:
        settings = tyro.cli(
            FixSettings,
            args=arguments,
            prog="difix-fix",
            description=DESCRIPTION,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
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
