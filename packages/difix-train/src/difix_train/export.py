"""A trained network in the form that others open: our folder, the published layout, or the released trainer's file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from difix_train.errors import InputError
from train_runs.run_folder import RunFolder

ExportForm = Literal["safetensors", "diffusers", "pkl"]


def trained_model(run: Path) -> Path:
    """The newest network of a run: the finished one, or that of the latest valid checkpoint."""
    folder = RunFolder(run)
    if (run / "model.safetensors").is_file():
        return run
    if folder.model.is_dir():
        return folder.model
    from train_runs.checkpoints import latest_valid

    checkpoint = latest_valid(folder.checkpoints)
    if checkpoint is None:
        raise InputError(f"{run} holds no trained network: name a run folder of difix-train, or its model folder")
    return checkpoint / "model"


def export_run(run: Path, out: Path, *, to: ExportForm, base: str | None = None) -> Path:
    """Write the newest network of a run in another form; adapters on the UNet are merged into it.

    Args:
        run: As for :func:`trained_model`.
        out: Folder, or for "pkl" a file; must not exist yet.
        base: For the published layout: where tokenizer and text encoder come from (SD-Turbo, or published weights).

    Raises:
        InputError: There is no network, something lacks for the form, or ``out`` exists or cannot be written.
    """
    model = trained_model(run)

    from difix_model.formats.conversion import convert_checkpoint

    return convert_checkpoint(model, out, to=to, base=base)
