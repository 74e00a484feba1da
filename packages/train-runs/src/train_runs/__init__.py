"""Training runs that can be killed anywhere: a folder, checkpoints, and the loop, for any task. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train_runs.checkpoints import (
        Checkpoint,
        latest_valid,
        read_checkpoint,
        recover,
        remove_older,
        write_checkpoint,
    )
    from train_runs.config import LoopConfig, OptimizerConfig
    from train_runs.ema import WARMUPS, Ema
    from train_runs.epochs import EpochSampler
    from train_runs.errors import InputError, NonFiniteLossError
    from train_runs.loop import Loop, newest_checkpoint
    from train_runs.processes import Processes, full_tensor, reshard_like
    from train_runs.records import StepRecord
    from train_runs.run_folder import RunFolder
    from train_runs.stream import BatchStream, Sampler
    from train_runs.task import ModelTask, ParameterGroup, Task, TaskState
    from train_runs.trackers import Tracker, open_trackers

_SUBMODULES = {
    "WARMUPS": "ema",
    "BatchStream": "stream",
    "Checkpoint": "checkpoints",
    "Ema": "ema",
    "EpochSampler": "epochs",
    "InputError": "errors",
    "Loop": "loop",
    "LoopConfig": "config",
    "ModelTask": "task",
    "NonFiniteLossError": "errors",
    "OptimizerConfig": "config",
    "ParameterGroup": "task",
    "Processes": "processes",
    "RunFolder": "run_folder",
    "Sampler": "stream",
    "StepRecord": "records",
    "Task": "task",
    "TaskState": "task",
    "Tracker": "trackers",
    "full_tensor": "processes",
    "latest_valid": "checkpoints",
    "newest_checkpoint": "loop",
    "open_trackers": "trackers",
    "read_checkpoint": "checkpoints",
    "recover": "checkpoints",
    "remove_older": "checkpoints",
    "reshard_like": "processes",
    "write_checkpoint": "checkpoints",
}

__all__ = [
    "WARMUPS",
    "BatchStream",
    "Checkpoint",
    "Ema",
    "EpochSampler",
    "InputError",
    "Loop",
    "LoopConfig",
    "ModelTask",
    "NonFiniteLossError",
    "OptimizerConfig",
    "ParameterGroup",
    "Processes",
    "RunFolder",
    "Sampler",
    "StepRecord",
    "Task",
    "TaskState",
    "Tracker",
    "full_tensor",
    "latest_valid",
    "newest_checkpoint",
    "open_trackers",
    "read_checkpoint",
    "recover",
    "remove_older",
    "reshard_like",
    "write_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
