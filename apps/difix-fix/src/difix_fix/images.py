"""The half of `difix-fix` that fixes images: what is chosen, progress, stopping and going on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from commands import exit_code
from difix_fix.cli import FixSettings
from difix_fix.outcome import ended_with, say_what_changed
from difix_fix.reference_flags import reference_config, say_what_was_chosen
from difix_model import InputError, plan_job
from difix_model.errors import first_problems
from difix_model.jobs.files import FixJob

if TYPE_CHECKING:
    from difix_model import DifixPipeline, FixVerdict

IMAGES_ONLY = ("mask", "alpha", "write_mask", "skip_broken")


def refuse_options_for_images(settings: FixSettings) -> None:
    """Refuse what has no meaning for videos and sequences."""
    given = [name for name in IMAGES_ONLY if getattr(settings, name)]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} is for images, and {settings.input} is fixed frame by frame")


def fix_images(settings: FixSettings) -> int:
    """Fix an image or a folder of images, and return the exit code."""
    job = plan_job(
        settings.input,
        settings.out,
        settings.reference,
        references=reference_config(settings),
        mask=settings.mask,
        alpha=settings.alpha,
        write_mask=settings.write_mask,
        resume=settings.resume,
        skip_broken=settings.skip_broken,
    )
    if job.finished:
        print(f"{len(job.finished)} images are finished already.", file=sys.stderr)
    say_what_was_chosen(job.choice, job.choice_output)
    verdicts: list[FixVerdict] = []
    try:
        if job.inputs:
            _run(settings, job, verdicts)
    except KeyboardInterrupt as interrupt:
        total = len(job.inputs) + len(job.finished)
        print(
            f"Stopped: {len(job.finished) + len(verdicts)} of {total} images are finished. Go on with --resume.",
            file=sys.stderr,
        )
        return exit_code(interrupt)
    say_what_changed(verdicts, "image")
    ended_with(_written(settings, job), settings, verdicts)
    if job.skipped:
        print(f"error: {len(job.skipped)} left out: {first_problems(job.skipped)}", file=sys.stderr)
        return 2
    return 0


def _run(settings: FixSettings, job: FixJob, verdicts: list[FixVerdict]) -> None:
    from commands import progress_bar

    pipeline = _opened(settings)
    from difix_model.jobs.fix_files import run_job

    with progress_bar() as bars:
        task = bars.add_task("Fixing", note="", total=len(job.finished) + len(job.inputs), completed=len(job.finished))
        for batch in run_job(job, pipeline, strength=settings.fixer.strength):
            verdicts += batch
            bars.advance(task, len(batch))


def _opened(settings: FixSettings) -> DifixPipeline:
    from commands import console

    with console.status("Loading the network"):
        # Here, after everything that can be said without it, torch is loaded.
        from difix_model import open_pipeline

        return open_pipeline(settings.fixer, device=settings.device)


def _written(settings: FixSettings, job: FixJob) -> Path:
    return settings.out if settings.input.is_dir() else (*job.outputs, *job.finished)[0]
