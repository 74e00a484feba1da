"""Difix3D: Gaussian splats that improve with the views that a fixer returns.

Start with `progressive`, the method on one page.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix3d.config import ProgressiveConfig, released_config
    from difix3d.distillation import Distillation
    from difix3d.distillation_config import DistillationConfig
    from difix3d.enhance import EnhancedRenderer, nearest_views
    from difix3d.errors import InputError
    from difix3d.experiment import Experiment, Progress
    from difix3d.fixers.batches import RenderedView, fixed_views
    from difix3d.fixers.contract import FixRequest, FixResult, ViewFixer
    from difix3d.fixers.difix import DifixFixer
    from difix3d.fixers.ensemble import EnsembleFixer
    from difix3d.fixers.identity import IdentityFixer
    from difix3d.fixers.opening import open_fixer
    from difix3d.novel_views import NovelView, NovelViews
    from difix3d.progressive import ProgressiveTrainer
    from difix3d.run_folder import RunFolder
    from difix3d.settings import RunSettings
    from difix3d.targets import target_poses

_SUBMODULES = {
    "DifixFixer": "fixers.difix",
    "Distillation": "distillation",
    "DistillationConfig": "distillation_config",
    "EnhancedRenderer": "enhance",
    "EnsembleFixer": "fixers.ensemble",
    "Experiment": "experiment",
    "FixRequest": "fixers.contract",
    "FixResult": "fixers.contract",
    "IdentityFixer": "fixers.identity",
    "InputError": "errors",
    "NovelView": "novel_views",
    "NovelViews": "novel_views",
    "Progress": "experiment",
    "ProgressiveConfig": "config",
    "ProgressiveTrainer": "progressive",
    "RenderedView": "fixers.batches",
    "RunFolder": "run_folder",
    "RunSettings": "settings",
    "ViewFixer": "fixers.contract",
    "fixed_views": "fixers.batches",
    "nearest_views": "enhance",
    "open_fixer": "fixers.opening",
    "released_config": "config",
    "target_poses": "targets",
}
"""Where each public name lives; it is imported when it is first used."""

__all__ = [
    "DifixFixer",
    "Distillation",
    "DistillationConfig",
    "EnhancedRenderer",
    "EnsembleFixer",
    "Experiment",
    "FixRequest",
    "FixResult",
    "IdentityFixer",
    "InputError",
    "NovelView",
    "NovelViews",
    "Progress",
    "ProgressiveConfig",
    "ProgressiveTrainer",
    "RenderedView",
    "RunFolder",
    "RunSettings",
    "ViewFixer",
    "fixed_views",
    "nearest_views",
    "open_fixer",
    "released_config",
    "target_poses",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
