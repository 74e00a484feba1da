"""Text or one image to a 3D Gaussian splat.

Start with `pipeline`, which puts the networks together, and `denoiser` and `gsvae`, the two that a splat needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffsplat.config import ElevEstConfig, GenerationConfig, GSReconConfig
    from diffsplat.denoiser import MultiViewControlNet, MultiViewDenoiser, TextCondition
    from diffsplat.elevest import ElevEst
    from diffsplat.errors import InputError
    from diffsplat.gsrecon import GSRecon
    from diffsplat.gsvae import GSVAE
    from diffsplat.pipeline import DiffSplatPipeline, GeneratedSplat, PipelineParts
    from diffsplat.splat_grids import ActiveGaussians, SplatGrids, activated

_SUBMODULES = {
    "ActiveGaussians": "splat_grids",
    "DiffSplatPipeline": "pipeline",
    "ElevEst": "elevest",
    "ElevEstConfig": "config",
    "GSRecon": "gsrecon",
    "GSReconConfig": "config",
    "GSVAE": "gsvae",
    "GeneratedSplat": "pipeline",
    "GenerationConfig": "config",
    "InputError": "errors",
    "MultiViewControlNet": "denoiser",
    "MultiViewDenoiser": "denoiser",
    "PipelineParts": "pipeline",
    "SplatGrids": "splat_grids",
    "TextCondition": "denoiser",
    "activated": "splat_grids",
}
"""Where each public name lives; it is imported when it is first used."""

__all__ = [
    "GSVAE",
    "ActiveGaussians",
    "DiffSplatPipeline",
    "ElevEst",
    "ElevEstConfig",
    "GSRecon",
    "GSReconConfig",
    "GeneratedSplat",
    "GenerationConfig",
    "InputError",
    "MultiViewControlNet",
    "MultiViewDenoiser",
    "PipelineParts",
    "SplatGrids",
    "TextCondition",
    "activated",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
