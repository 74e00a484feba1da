"""Gaussian splats: what they are, how a camera sees them, and the files that hold them; on a CPU or on CUDA.

Start with `gaussians`, the record of raw parameters, and `rasterizer`, the contract that both backends fulfil.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splat_render.cameras import Camera
    from splat_render.config import RenderConfig
    from splat_render.device import chosen_device
    from splat_render.errors import InputError
    from splat_render.files.formats import SplatFile, read_splats, write_splats
    from splat_render.files.ply import read_ply, write_ply
    from splat_render.gaussians import Gaussians
    from splat_render.output import RenderBatch, RenderOutput, RenderStats
    from splat_render.rasterizer import Rasterizer, make_rasterizer, rasterize
    from splat_render.transform import transformed

_SUBMODULES = {
    "Camera": "cameras",
    "Gaussians": "gaussians",
    "InputError": "errors",
    "Rasterizer": "rasterizer",
    "RenderBatch": "output",
    "RenderConfig": "config",
    "RenderOutput": "output",
    "RenderStats": "output",
    "SplatFile": "files.formats",
    "chosen_device": "device",
    "make_rasterizer": "rasterizer",
    "rasterize": "rasterizer",
    "read_ply": "files.ply",
    "read_splats": "files.formats",
    "transformed": "transform",
    "write_ply": "files.ply",
    "write_splats": "files.formats",
}
"""Where each public name lives; it is imported when it is first used."""

__all__ = [
    "Camera",
    "Gaussians",
    "InputError",
    "Rasterizer",
    "RenderBatch",
    "RenderConfig",
    "RenderOutput",
    "RenderStats",
    "SplatFile",
    "chosen_device",
    "make_rasterizer",
    "rasterize",
    "read_ply",
    "read_splats",
    "transformed",
    "write_ply",
    "write_splats",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
