"""What `difix-train` understands."""

from __future__ import annotations

from typing import Annotated

import tyro

from difix_train.settings import EvalSettings, RunSettings

RunCommand = Annotated[
    RunSettings,
    tyro.conf.subcommand("run", description="Train a Difix network from pairs of degraded and clean images."),
]
EvalCommand = Annotated[
    EvalSettings,
    tyro.conf.subcommand(
        "eval", description="Measure a network on pairs: before, and after with the right, a wrong and no reference."
    ),
]
Command = RunCommand | EvalCommand
