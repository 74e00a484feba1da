"""Entry point of `splat-recon`: parse, run, turn errors into one sentence and an exit code."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from commands import run_command, verb_of
from splat_recon_app import cli, data_flags

DISTRIBUTION = "splat-recon-app"

VERBS: dict[str, Any] = {
    "sfm": data_flags.Sfm,
    "train": cli.Train,
    "eval": cli.Eval,
    "render": cli.Render,
    "view": cli.View,
    "export": cli.Export,
    "convert": data_flags.Convert,
}
"""What each verb takes."""

HOMES = {
    "sfm": "sfm.sfm",
    "train": "train.train",
    "eval": "evaluation.evaluate",
    "render": "render.render",
    "view": "view.view",
    "export": "export.export",
    "convert": "scenes.convert",
}
"""Where each verb is done; only the one that is asked for is imported."""


def run(verb: str, command: Any) -> int:
    """Run a command and return the exit code."""
    # Several OpenMP threads on small tensors cost more than they give; numba brings its own threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    module, function = HOMES[verb].split(".")
    return getattr(import_module(f"splat_recon_app.{module}"), function)(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and run; 0 on success, 2 on bad input, 128 and its number when stopped by a signal."""
    verb, given = verb_of(
        VERBS, argv, prog="splat-recon", distribution=DISTRIBUTION, description="Photos to Gaussian splats."
    )
    # A crash in compiled code leaves its trace too, not an empty screen.
    if sys.stderr is sys.__stderr__:
        faulthandler.enable()
    return run_command(
        VERBS[verb],
        partial(run, verb),
        given,
        prog=f"splat-recon {verb}",
        distribution=DISTRIBUTION,
        groups=cli.GROUPS.get(verb),
        stopped="stopped",
    )


if __name__ == "__main__":
    sys.exit(main())
