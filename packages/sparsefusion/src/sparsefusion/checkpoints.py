"""Weights: the published `.pt` pairs, Stable Diffusion's autoencoder, and our own single file.

Published weights state no license; what may be done with them is for their user to find out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sparsefusion.config import EftConfig, FieldConfig, ModelConfig, UNetConfig, VaeConfig
from sparsefusion.data.toy import load_tensors
from sparsefusion.eft import EpipolarTransformer
from sparsefusion.errors import InputError, first_problems
from sparsefusion.field.network import Field
from sparsefusion.vae import STABLE_DIFFUSION_SCALE, ImageVae, build_autoencoder
from sparsefusion.vldm.unet import Denoiser

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL


UNET_PREFIX = "unets.0."
"""Published denoisers are the first of a list."""

UNUSED_UNET_KEYS = frozenset({"null_conditional_embed", "null_conditional_hidden"})
"""Published for conditioning on text, which this model has none of."""

VAE_PREFIX = "first_stage_model."
"""Where a checkpoint of Stable Diffusion has its autoencoder."""

STABLE_DIFFUSION_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
"""Sizes of Stable Diffusion's autoencoder."""

FORMAT = "sparsefusion"
"""Name of our own format, in its metadata."""


@dataclass(frozen=True)
class SparseFusionModel:
    """The three networks."""

    eft: EpipolarTransformer
    denoiser: Denoiser
    vae: ImageVae
    config: ModelConfig
    """Their sizes."""


def build_model(config: ModelConfig) -> SparseFusionModel:
    """Networks of the given sizes with fresh weights."""
    vae = ImageVae(build_autoencoder(config.vae), config.latent_scale)
    return SparseFusionModel(EpipolarTransformer(config.eft), Denoiser(config.unet), vae, config)


def _weights(path: Path) -> dict[str, Tensor]:
    """The weights of a published `.pt`, with or without a wrapper."""
    content = load_tensors(path)
    if isinstance(content, Mapping):
        for key in ("model_state_dict", "state_dict"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no weights")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _load(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load weights strictly: missing, unexpected and misshapen ones are listed."""
    own = module.state_dict()
    problems = [f"{name} is missing" for name in sorted(set(own) - set(weights))]
    problems += [f"{name} is unknown" for name in sorted(set(weights) - set(own))]
    problems += [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        raise InputError(f"{what} has other weights: {first_problems(problems)}")
    module.load_state_dict(dict(weights), assign=False)


def load_eft(path: Path, config: EftConfig | None = None) -> EpipolarTransformer:
    """The transformer of a published pair, in mode "eval" until told otherwise."""
    eft = EpipolarTransformer(config or EftConfig())
    weights = _weights(path)
    # BatchNorm's counter is not used, and not every file has it.
    for name, value in eft.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, value)
    _load(eft, weights, str(path))
    return eft.eval()


def load_denoiser(path: Path, config: UNetConfig | None = None) -> Denoiser:
    """The denoiser of a published pair."""
    denoiser = Denoiser(config or UNetConfig())
    weights = _weights(path)
    own = {name.removeprefix(UNET_PREFIX): value for name, value in weights.items() if name.startswith(UNET_PREFIX)}
    if not own:
        raise InputError(f"{path} holds no denoiser: none of its weights begins with {UNET_PREFIX}")
    _load(denoiser, {name: value for name, value in own.items() if name not in UNUSED_UNET_KEYS}, str(path))
    return denoiser.eval()


def convert_compvis_vae(weights: Mapping[str, Tensor], num_levels: int) -> dict[str, Tensor]:
    """Names of diffusers for the weights of an autoencoder in Stable Diffusion's first format.

    Args:
        weights: Names without ``first_stage_model.``.
        num_levels: Levels of the autoencoder; decoders count theirs from the other end.
    """
    converted = {}
    for name, value in weights.items():
        if not name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
            continue
        new = name.replace("nin_shortcut", "conv_shortcut").replace("norm_out", "conv_norm_out")
        new = new.replace("mid.block_1", "mid_block.resnets.0").replace("mid.block_2", "mid_block.resnets.1")
        parts = new.split(".")
        if parts[1] == "down":
            parts[1] = "down_blocks"
        elif parts[1] == "up":
            parts[1:3] = ["up_blocks", str(num_levels - 1 - int(parts[2]))]
        if parts[1] in ("down_blocks", "up_blocks"):
            kinds = {"block": ["resnets"], "downsample": ["downsamplers", "0"], "upsample": ["upsamplers", "0"]}
            parts[3:4] = kinds[parts[3]]
        if parts[1:3] == ["mid", "attn_1"]:
            layer = {"norm": ["group_norm"], "q": ["to_q"], "k": ["to_k"], "v": ["to_v"], "proj_out": ["to_out", "0"]}
            parts[1:4] = ["mid_block", "attentions", "0", *layer[parts[3]]]
            if value.ndim == 4:
                value = value[:, :, 0, 0]
        converted[".".join(parts)] = value
    return converted


def load_vae(source: Path, scale: float = STABLE_DIFFUSION_SCALE) -> ImageVae:
    """Stable Diffusion's autoencoder, from a folder of diffusers or a `.ckpt`.

    Args:
        source: A folder with config.json, or one with a folder ``vae``; or a `.ckpt` with ``first_stage_model.*``.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    if source.is_dir():
        folder = source / "vae" if (source / "vae" / "config.json").is_file() else source
        try:
            model = AutoencoderKL.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"{source} cannot be read as an autoencoder of diffusers: {reason}") from error
        return ImageVae(model.eval(), scale)
    weights = _weights(source)
    own = {name.removeprefix(VAE_PREFIX): value for name, value in weights.items() if name.startswith(VAE_PREFIX)}
    if not own:
        raise InputError(f"{source} holds no autoencoder: none of its weights begins with {VAE_PREFIX}")
    own = {name: value for name, value in own.items() if not name.startswith("loss.")}
    model = stable_diffusion_autoencoder()
    _load(model, convert_compvis_vae(own, len(STABLE_DIFFUSION_VAE["block_out_channels"])), str(source))
    return ImageVae(model.eval(), scale)


def stable_diffusion_autoencoder() -> AutoencoderKL:
    """An autoencoder of Stable Diffusion's sizes with fresh weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(STABLE_DIFFUSION_VAE["block_out_channels"])
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * levels,  # type: ignore[arg-type]
        latent_channels=4,
        **STABLE_DIFFUSION_VAE,
    )


def save_model(model: SparseFusionModel, path: Path, *, note: str = "", half: bool = True) -> None:
    """Write all three networks into one safetensors file, with their sizes."""
    tensors = {}
    for part, module in (("eft", model.eft), ("denoiser", model.denoiser), ("vae", model.vae.model)):
        for name, value in module.state_dict().items():
            value = value.detach().cpu()
            tensors[f"{part}.{name}"] = (value.half() if half and value.is_floating_point() else value).contiguous()
    save_file(tensors, path, {"format": FORMAT, "config": json.dumps(asdict(model.config)), "note": note})


def load_model(path: Path) -> SparseFusionModel:
    """Read a file of `save_model`, in single precision and eval mode."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping.
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a file of this project's networks")
    try:
        config = _config(json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} describes networks of another form: {error}") from error
    model = build_model(config)
    for part, module in (("eft", model.eft), ("denoiser", model.denoiser), ("vae", model.vae.model)):
        own = {
            name.removeprefix(f"{part}."): value.float() if value.is_floating_point() else value
            for name, value in tensors.items()
            if name.startswith(f"{part}.")
        }
        _load(module, own, f"{path} ({part})")
        module.eval()
    return model


def _config(values: Mapping[str, Any]) -> ModelConfig:
    parts = dict(values)
    unet, vae = dict(parts.pop("unet")), dict(parts.pop("vae"))
    unet["dim_mults"] = tuple(unet["dim_mults"])
    vae["block_channels"] = tuple(vae["block_channels"])
    return ModelConfig(eft=EftConfig(**parts.pop("eft")), unet=UNetConfig(**unet), vae=VaeConfig(**vae), **parts)


EMBEDDED_MODEL = Path(__file__).parent / "weights" / "model.safetensors"
"""The small networks that come with the package; MODEL_CARD.md beside them says what they are."""


def save_field(field: Field, path: Path) -> None:
    """Write a field in the published form: a `.pt` whose ``model_state_dict`` holds plain tensors."""
    torch.save({"model_state_dict": field.state_dict(), "config": asdict(field.config)}, path)


def load_field(path: Path) -> Field:
    """Read a field, ours or a published one."""
    content = load_tensors(path)
    values = content.get("config") if isinstance(content, Mapping) else None
    try:
        config = FieldConfig(**values) if isinstance(values, Mapping) else FieldConfig()
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} describes a field of another form: {error}") from error
    field = Field(config)
    _load(field, _weights(path), str(path))
    return field
