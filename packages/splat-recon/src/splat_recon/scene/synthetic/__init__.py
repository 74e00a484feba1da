"""Generated scenes: ray-cast photos with exact poses, free of any license."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splat_recon.scene.synthetic.config import DEMO_SEED, SyntheticConfig
    from splat_recon.scene.synthetic.generate import generate_scene, true_depth, true_photo

_SUBMODULES = {
    "DEMO_SEED": "config",
    "SyntheticConfig": "config",
    "generate_scene": "generate",
    "true_depth": "generate",
    "true_photo": "generate",
}

__all__ = ["DEMO_SEED", "SyntheticConfig", "generate_scene", "true_depth", "true_photo"]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
