"""SparseFusion: a neural field of an object from a few posed, masked photos.

Public names are loaded on first use, so that importing a configuration does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsefusion.cache import cache_views
    from sparsefusion.cameras import Cameras, circle_cameras, depth_range
    from sparsefusion.checkpoints import (
        SparseFusionModel,
        build_model,
        load_denoiser,
        load_eft,
        load_field,
        load_model,
        load_vae,
        save_field,
        save_model,
    )
    from sparsefusion.config import DistillConfig, EftConfig, FieldConfig, ModelConfig, UNetConfig, VaeConfig
    from sparsefusion.data.co3d import Co3dCategory
    from sparsefusion.data.colmap import read_colmap_object
    from sparsefusion.data.sequence import ObjectSequence
    from sparsefusion.data.toy import read_toy
    from sparsefusion.distill import Diffusion, Distillation, PosedImages, choose_inputs
    from sparsefusion.eft import EpipolarTransformer
    from sparsefusion.errors import InputError
    from sparsefusion.field.network import Field
    from sparsefusion.field.render import render_image
    from sparsefusion.reconstruct import start_distillation
    from sparsefusion.vldm.diffusion import sample_plms
    from sparsefusion.vldm.unet import Denoiser

_SUBMODULES = {
    "Cameras": "cameras",
    "Co3dCategory": "data.co3d",
    "Denoiser": "vldm.unet",
    "Diffusion": "distill",
    "DistillConfig": "config",
    "Distillation": "distill",
    "EftConfig": "config",
    "EpipolarTransformer": "eft",
    "Field": "field.network",
    "FieldConfig": "config",
    "InputError": "errors",
    "ModelConfig": "config",
    "ObjectSequence": "data.sequence",
    "PosedImages": "distill",
    "SparseFusionModel": "checkpoints",
    "UNetConfig": "config",
    "VaeConfig": "config",
    "build_model": "checkpoints",
    "cache_views": "cache",
    "choose_inputs": "distill",
    "circle_cameras": "cameras",
    "depth_range": "cameras",
    "load_denoiser": "checkpoints",
    "load_eft": "checkpoints",
    "load_field": "checkpoints",
    "load_model": "checkpoints",
    "load_vae": "checkpoints",
    "read_colmap_object": "data.colmap",
    "read_toy": "data.toy",
    "render_image": "field.render",
    "sample_plms": "vldm.diffusion",
    "save_field": "checkpoints",
    "save_model": "checkpoints",
    "start_distillation": "reconstruct",
}

__all__ = [
    "Cameras",
    "Co3dCategory",
    "Denoiser",
    "Diffusion",
    "DistillConfig",
    "Distillation",
    "EftConfig",
    "EpipolarTransformer",
    "Field",
    "FieldConfig",
    "InputError",
    "ModelConfig",
    "ObjectSequence",
    "PosedImages",
    "SparseFusionModel",
    "UNetConfig",
    "VaeConfig",
    "build_model",
    "cache_views",
    "choose_inputs",
    "circle_cameras",
    "depth_range",
    "load_denoiser",
    "load_eft",
    "load_field",
    "load_model",
    "load_vae",
    "read_colmap_object",
    "read_toy",
    "render_image",
    "sample_plms",
    "save_field",
    "save_model",
    "start_distillation",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
