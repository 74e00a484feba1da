"""What `difix-train` understands."""

from __future__ import annotations

from typing import Annotated

import tyro

from difix_train.settings import EvalSettings, ExportSettings, LoraSettings, RunSettings

RunCommand = Annotated[
    RunSettings,
    tyro.conf.subcommand("run", description="Train a Difix network from pairs of degraded and clean images."),
]
LoraCommand = Annotated[
    LoraSettings,
    tyro.conf.subcommand(
        "lora",
        description="Fine-tune by adapters, in bfloat16 with recomputed activations: for one 24 GB GPU.",
    ),
]
EvalCommand = Annotated[
    EvalSettings,
    tyro.conf.subcommand(
        "eval", description="Measure a network on pairs: before, and after with the right, a wrong and no reference."
    ),
]
ExportCommand = Annotated[
    ExportSettings,
    tyro.conf.subcommand(
        "export", description="Write a run's network as our folder, in the published layout or as .pkl."
    ),
]
Command = RunCommand | LoraCommand | EvalCommand | ExportCommand
