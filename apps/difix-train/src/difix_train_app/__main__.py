"""Parse, run, show progress, and tell how it ended by the exit code."""

import json
import os
import shutil
import sys
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from commands import collected, ended, goes_on, logging_to, next_line, run_command, verb_of
from difix_train import EvalSettings, ExportSettings, InputError, NonFiniteLossError, RunSettings
from difix_train_app.cli import DESCRIPTION, DISTRIBUTION, KINDS, TRAINING_GROUPS, VERBS
from output_files import write_text_whole

if TYPE_CHECKING:
    from difix_train import PairEvaluation, TrainingRun

IS_MAIN = os.environ.get("RANK", "0") == "0"
"""Whether this is the process that talks, of those that `accelerate launch` started."""

STEPS_BETWEEN_UPDATES = 5
"""Optimizer steps between two looks at the progress bar and at signals."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix-train` and return its exit code: 0, 2 for bad input, 1 when training breaks down, 128 + signal."""
    verb, given = verb_of(VERBS, arguments, prog="difix-train", distribution=DISTRIBUTION, description=DESCRIPTION)
    return run_command(
        KINDS[verb],
        {"eval": _evaluate, "export": _export}.get(verb, _train),
        given,
        prog=f"difix-train {verb}",
        distribution=DISTRIBUTION,
        groups=TRAINING_GROUPS if verb in ("run", "lora") else None,
        description=VERBS[verb],
        flat=True,
        failed=NonFiniteLossError,
    )


def _train(settings: RunSettings) -> int:
    settings = replace(settings, resume=goes_on(settings.out, resume=settings.resume, traces=("checkpoints", "model")))
    existed = settings.out.exists()
    settings.check()
    if not IS_MAIN:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            return _train_checked(settings)
    try:
        with logging_to(settings.out / "log.txt"):
            return _train_checked(settings)
    except InputError:
        if not existed and {path.name for path in settings.out.iterdir()} <= {"log.txt"}:
            shutil.rmtree(settings.out)
        raise


def _train_checked(settings: RunSettings) -> int:
    print("Loading pairs and weights", flush=True)
    if settings.model is None and settings.base is None and settings.preset is None:
        print("Training goes on from the weights that come with the project (--model names others).")

    # Here, after everything that can be said without it, torch is loaded.
    from difix_train import open_run

    run = open_run(settings)
    with collected() as received, closing(run):
        _show(run, received)
        stopped_by = run.stop_requested(received)
        if stopped_by:
            run.save()
    if run.latest_evaluation is not None:
        _print_table(run.latest_evaluation)
    step = run.step
    if run.loop.seconds:
        print(f"{run.loop.waiting_fraction:.1%} of the training time went into waiting for images.")
    if stopped_by or step < settings.config.max_steps:
        how = "and saved" if stopped_by else "as asked"
        print(f"Stopped at step {step} {how}. Go on with the same command and --resume.", file=sys.stderr)
        print(run.folder.checkpoint(step))
        return 128 + stopped_by if stopped_by else 0
    ended(run.folder.model, "difix-train", "eval", "--pairs", settings.pairs, "--model", run.folder.model)
    return 0


def _evaluate(settings: EvalSettings) -> int:
    settings.check()

    from difix_train import evaluate_model

    evaluation = evaluate_model(settings)
    _print_table(evaluation)
    if settings.out is not None:
        write_text_whole(settings.out, json.dumps(evaluation.to_dict(), indent=2) + "\n")
        print(settings.out)
    print(f"Next: {next_line('difix3d-train', '--model', settings.model)}", file=sys.stderr)
    return 0


def _export(settings: ExportSettings) -> int:
    from difix_train import export_run

    made = export_run(settings.run, settings.out, to=settings.to, base=settings.base)
    ended(made, "difix-fix", "serve", "--model", made, extra="serve")
    return 0


def _show(run: "TrainingRun", received: list[int]) -> None:
    """Draw a bar while the run proceeds, until it ends or a signal has come."""
    from commands import progress_bar

    with progress_bar() as bars:
        task = bars.add_task("Training", total=run.end, completed=run.step, note="")
        while not run.done and not run.stop_requested(received):
            run.advance(STEPS_BETWEEN_UPDATES)
            history = run.loop.history
            bars.update(task, completed=run.step, note=f"loss {history[-1].loss:.4g}" if history else "")


def _print_table(evaluation: "PairEvaluation") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{evaluation.num_samples} pairs")
    table.add_column("")
    for name in ("PSNR", "SSIM", "FLIP", "LPIPS", "harmed"):
        table.add_column(name, justify="right")
    for name, scores in evaluation.table():
        lpips = "-" if scores.lpips is None else f"{scores.lpips:.4f}"
        harmed = "" if scores.harmed is None else f"{scores.harmed:.0%}"
        table.add_row(name, f"{scores.psnr:.3f}", f"{scores.ssim:.4f}", f"{scores.flip:.4f}", lpips, harmed)
    console = Console()
    console.print(table)
    if evaluation.uses_reference is not None:
        verdict = "beats" if evaluation.uses_reference else "does not beat"
        console.print(f"The right reference {verdict} both a wrong one and none.")


if __name__ == "__main__":
    sys.exit(main())
