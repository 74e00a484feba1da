"""The half of `difix-fix` that fixes videos and sequences: progress, stopping and going on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from commands import exit_code
from difix_fix.cli import FixSettings
from difix_fix.outcome import ended_with, say_what_changed
from difix_fix.reference_flags import reference_config, say_what_was_chosen
from difix_model import InputError

if TYPE_CHECKING:
    from difix_model import VideoRun
    from difix_model.video.job import VideoJob


def treats_as_sequence(settings: FixSettings) -> bool:
    """Tell whether the input is a video, or a folder whose images follow each other."""
    from difix_model.video.job import is_sequence

    if is_sequence(settings.input, settings.out, steady=settings.steady):
        return True
    unused = [name for name in ("fps", "steady") if getattr(settings, name)]
    if unused:
        option = unused[0].replace("_", "-")
        raise InputError(f"--{option} is for videos and folders of consecutive frames, and {settings.input} is neither")
    return False


def fix_sequence(settings: FixSettings) -> int:
    """Fix a video or sequence and return the exit code."""
    from difix_model import plan_video

    job = plan_video(
        settings.input, settings.out, settings.reference, references=reference_config(settings), rate=settings.fps
    )
    say_what_was_chosen(job.choice, job.choice_output)
    run: VideoRun | None = None
    try:
        run = _opened(settings, job)
        _run(run)
    except KeyboardInterrupt as interrupt:
        print(_after_a_stop(run, job), file=sys.stderr)
        return exit_code(interrupt)
    if run.notice:
        print(f"note: {run.notice}", file=sys.stderr)
    say_what_changed(run.verdicts, "frame")
    ended_with(job.out, settings, run.verdicts)
    return 0


def _opened(settings: FixSettings, job: VideoJob) -> VideoRun:
    from commands import console

    with console.status("Loading the network"):
        # Here, after everything that can be said without it, torch is loaded.
        from difix_model import TemporalFilterConfig, VideoRun, open_pipeline

        pipeline = open_pipeline(settings.fixer, device=settings.device)
    return VideoRun(
        job,
        pipeline,
        strength=settings.fixer.strength,
        steady=TemporalFilterConfig() if settings.steady else None,
        resume=settings.resume,
        settings={name: getattr(settings.fixer, name) for name in ("model", "base", "gate")},
    )


def _run(run: VideoRun) -> None:
    from commands import progress_bar

    with progress_bar() as bars:
        task = bars.add_task("Fixing", note="", total=run.num_frames, completed=run.num_resumed)
        with run:
            for finished in run:
                bars.advance(task, finished)


def _after_a_stop(run: VideoRun | None, job: VideoJob) -> str:
    if run is not None and not run.frames_written and job.work_folder.exists():
        return f"Stopped: the finished frames are in {job.work_folder}. Go on with the same command and --resume."
    if run is None or not run.frames_written:
        return "Stopped before a frame was finished."
    total = f" of {run.num_frames}" if run.num_frames else ""
    written = f"{job.out} holds the first {run.frames_written}{total} frames"
    return f"Stopped: {written}. Go on with the same command and --resume."
