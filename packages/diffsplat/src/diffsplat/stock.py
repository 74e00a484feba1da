"""The classes of diffusers that are used; Any, because their annotations are too vague to be checked."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.models.autoencoders.vae import DecoderTiny as _DecoderTiny

_diffusers: Any = diffusers

AutoencoderKL: Any = _diffusers.AutoencoderKL
ControlNetModel: Any = _diffusers.ControlNetModel
PixArtTransformer2DModel: Any = _diffusers.PixArtTransformer2DModel
SD3Transformer2DModel: Any = _diffusers.SD3Transformer2DModel
UNet2DConditionModel: Any = _diffusers.UNet2DConditionModel
DecoderTiny: Any = _DecoderTiny

DDIMScheduler: Any = _diffusers.DDIMScheduler
DPMSolverMultistepScheduler: Any = _diffusers.DPMSolverMultistepScheduler
FlowMatchEulerDiscreteScheduler: Any = _diffusers.FlowMatchEulerDiscreteScheduler
