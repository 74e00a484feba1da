"""Difix3D: Gaussian splats that improve with the views that a fixer returns.

Start with `loop.progressive`, the method on one page.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix3d.distillation import Distillation
    from difix3d.distillation_config import DistillationConfig
    from difix3d.enhance.renderer import EnhancedRenderer
    from difix3d.errors import InputError
    from difix3d.fixers.batches import RenderedView, fixed_views
    from difix3d.fixers.contract import FixRequest, FixResult, ViewFixer
    from difix3d.fixers.difix import DifixFixer
    from difix3d.fixers.ensemble import EnsembleFixer
    from difix3d.fixers.identity import IdentityFixer
    from difix3d.fixers.opening import open_fixer
    from difix3d.fixers.references import nearest_views
    from difix3d.loop.config import ProgressiveConfig
    from difix3d.loop.novel_views import NovelView, NovelViews
    from difix3d.loop.presets import released_config
    from difix3d.loop.progressive import ProgressiveTrainer
    from difix3d.loop.targets import target_poses
    from difix3d.run.experiment import Experiment
    from difix3d.run.progress import Progress
    from difix3d.run.run_folder import RunFolder
    from difix3d.run.settings import RunSettings

_SUBMODULES = {
    "DifixFixer": "fixers.difix",
    "Distillation": "distillation",
    "DistillationConfig": "distillation_config",
    "EnhancedRenderer": "enhance.renderer",
    "EnsembleFixer": "fixers.ensemble",
    "Experiment": "run.experiment",
    "FixRequest": "fixers.contract",
    "FixResult": "fixers.contract",
    "IdentityFixer": "fixers.identity",
    "InputError": "errors",
    "NovelView": "loop.novel_views",
    "NovelViews": "loop.novel_views",
    "Progress": "run.progress",
    "ProgressiveConfig": "loop.config",
    "ProgressiveTrainer": "loop.progressive",
    "RenderedView": "fixers.batches",
    "RunFolder": "run.run_folder",
    "RunSettings": "run.settings",
    "ViewFixer": "fixers.contract",
    "fixed_views": "fixers.batches",
    "nearest_views": "fixers.references",
    "open_fixer": "fixers.opening",
    "released_config": "loop.presets",
    "target_poses": "loop.targets",
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
