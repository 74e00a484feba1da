"""Training of Difix networks from pairs of degraded and clean images.

Public names are loaded on first use, so that importing a configuration does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix_train.config import DataConfig, LossConfig, OptimizerConfig, TrainConfig
    from difix_train.dataset import Batch, Draw, Pair, PairDataset
    from difix_train.errors import InputError, NonFiniteLossError
    from difix_train.evaluate import PairEvaluation, evaluate_pairs
    from difix_train.export import export_run, trained_model
    from difix_train.losses.objective import Objective
    from difix_train.presets import PRESETS, Preset, preset
    from difix_train.run import TrainingRun, evaluate_model, open_run
    from difix_train.settings import EvalSettings, ExportSettings, RunSettings
    from difix_train.start import StartingPoint, start_from_model, start_from_preset
    from difix_train.task import DifixTask

_SUBMODULES = {
    "DataConfig": "config",
    "LossConfig": "config",
    "OptimizerConfig": "config",
    "TrainConfig": "config",
    "Batch": "dataset",
    "Draw": "dataset",
    "Pair": "dataset",
    "PairDataset": "dataset",
    "InputError": "errors",
    "NonFiniteLossError": "errors",
    "PairEvaluation": "evaluate",
    "evaluate_pairs": "evaluate",
    "export_run": "export",
    "trained_model": "export",
    "Objective": "losses.objective",
    "PRESETS": "presets",
    "Preset": "presets",
    "preset": "presets",
    "TrainingRun": "run",
    "evaluate_model": "run",
    "open_run": "run",
    "EvalSettings": "settings",
    "ExportSettings": "settings",
    "RunSettings": "settings",
    "StartingPoint": "start",
    "start_from_model": "start",
    "start_from_preset": "start",
    "DifixTask": "task",
}

__all__ = [
    "PRESETS",
    "Batch",
    "DataConfig",
    "DifixTask",
    "Draw",
    "EvalSettings",
    "ExportSettings",
    "InputError",
    "LossConfig",
    "NonFiniteLossError",
    "Objective",
    "OptimizerConfig",
    "Pair",
    "PairDataset",
    "PairEvaluation",
    "Preset",
    "RunSettings",
    "StartingPoint",
    "TrainConfig",
    "TrainingRun",
    "evaluate_model",
    "evaluate_pairs",
    "export_run",
    "open_run",
    "preset",
    "start_from_model",
    "start_from_preset",
    "trained_model",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
