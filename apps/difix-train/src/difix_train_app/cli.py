"""What `difix-train` understands."""

from __future__ import annotations

from typing import Annotated

import tyro

from difix_train.config import LossConfig, OptimizerConfig, TrainConfig
from difix_train.settings import EvalSettings, ExportSettings, RunSettings

UNET_LORA_RANK = 16
UNET_LORA_LEARNING_RATE = 1e-4


def lora_defaults() -> RunSettings:
    """The settings that `difix-train lora` begins with; the same fields as those of `run`."""
    return RunSettings(
        pairs=tyro.MISSING,
        out=tyro.MISSING,
        unet_lora_rank=UNET_LORA_RANK,
        config=TrainConfig(
            trainable="lora",
            precision="bfloat16",
            gradient_checkpointing=True,
            gradient_accumulation=4,
            loss=LossConfig(views="target"),
            optimizer=OptimizerConfig(learning_rate=UNET_LORA_LEARNING_RATE, warmup_steps=100),
        ),
    )


RunCommand = Annotated[
    RunSettings,
    tyro.conf.subcommand("run", description="Train a Difix network from pairs of degraded and clean images."),
]
LoraCommand = Annotated[
    RunSettings,
    tyro.conf.subcommand(
        "lora",
        description="Fine-tune by adapters, in bfloat16 with recomputed activations: for one 24 GB GPU.",
        default=lora_defaults(),
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
