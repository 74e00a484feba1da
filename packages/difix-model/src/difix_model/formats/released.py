"""Published weights (the layout of the hub) as our network; no code that lies beside them is executed."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difix_model.config import NetworkConfig, UNetConfig, VaeConfig
from difix_model.errors import InputError, first_problems
from difix_model.formats.checkpoint import empty_network, load_strictly, read_json, read_tensors
from difix_model.formats.hub import weights_folder
from difix_model.lora import add_base_layer_names
from difix_model.network import DifixNetwork
from difix_model.text import TextEncoder
from difix_model.vae import SKIP_INIT

INDEX_FILE = "model_index.json"

UNET_FIELDS = {
    "block_out_channels": "block_out_channels",
    "layers_per_block": "layers_per_block",
    "attention_head_dim": "num_heads",
    "cross_attention_dim": "cross_attention_dim",
    "norm_num_groups": "norm_num_groups",
    "down_block_types": "down_block_types",
    "up_block_types": "up_block_types",
    "transformer_layers_per_block": "transformer_layers_per_block",
    "use_linear_projection": "use_linear_projection",
    "upcast_attention": "upcast_attention",
}
VAE_FIELDS = {
    "block_out_channels": "block_out_channels",
    "layers_per_block": "layers_per_block",
    "latent_channels": "latent_channels",
    "norm_num_groups": "norm_num_groups",
    "scaling_factor": "scaling_factor",
    "mid_block_add_attention": "mid_block_attention",
    "gamma": "gamma",
    "ignore_skip": "ignore_skip",
    "lora_rank": "lora_rank",
}
"""diffusers' names of configuration entries and ours."""

INERT = {"sample_size", "force_upcast", "in_channels", "out_channels", "latents_mean", "latents_std", "shift_factor"}
"""Entries that do not change what the network computes here, or that are implied by others."""

OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the autoencoder's attention layers in older Stable Diffusion repositories."""


@dataclass(frozen=True, eq=False)
class Released:
    """Published weights, loaded."""

    network: DifixNetwork
    text_encoder: TextEncoder
    folder: Path
    """Where the layout lies on disk."""


def is_layout(folder: Path) -> bool:
    """Tell whether a folder is in the published layout."""
    return (folder / INDEX_FILE).is_file()


def load_released(
    source: Path | str,
    *,
    revision: str | None = None,
    reference_attention: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Released:
    """Load weights in the published layout (nvidia/difix, nvidia/difix_ref or a copy of one).

    Args:
        source: Folder or hub id.
        reference_attention: Whether self-attention runs across views; None takes it from the layout, in which a
            UNet of its own class stands for the variant with references.

    Raises:
        InputError: If anything is absent, damaged, missing or unexpected, or not Difix at all.
    """
    folder = weights_folder(source, revision=revision)
    if reference_attention is None:
        reference_attention = uses_reference(folder)
    unet, vae = read_tensors(weights_path(folder, "unet")), read_tensors(weights_path(folder, "vae"))
    if not _has_adapters(vae):
        raise InputError(
            f"{folder} holds no Difix weights: its autoencoder has no skip connections. "
            "It may serve as the base of a model_<step>.pkl file"
        )
    config = layout_config(folder, reference_attention=reference_attention)
    network = assembled(config, unet, vae, source=folder, dtype=dtype)
    return Released(network=network, text_encoder=TextEncoder(folder), folder=folder)


def initialize_from_base(
    base: Path | str, *, lora_rank: int = 4, reference_attention: bool = True, generator: torch.Generator
) -> Released:
    """Make an untrained network from SD-Turbo, as training starts with: fresh skip convolutions and adapters.

    Args:
        base: Folder or hub id in the published layout; of Difix weights only the base layers are taken.
        reference_attention: Whether self-attention runs across views.

    Raises:
        InputError: If the base cannot be read or does not fit.
    """
    folder = weights_folder(base)
    config = layout_config(folder, reference_attention=reference_attention, lora_rank=lora_rank)
    vae = base_vae(folder, config)
    for name, parameter in empty_network(config).vae.state_dict().items():
        if "skip_conv" in name and "lora" not in name:
            vae[name] = torch.full(parameter.shape, SKIP_INIT)
        elif "lora_A" in name:
            vae[name] = torch.randn(parameter.shape, generator=generator) / lora_rank
        elif "lora_B" in name:
            vae[name] = torch.zeros(parameter.shape)
    network = assembled(config, read_tensors(weights_path(folder, "unet")), vae, source=folder, dtype=torch.float32)
    return Released(network=network, text_encoder=TextEncoder(folder), folder=folder)


def uses_reference(folder: Path) -> bool:
    """Tell from a layout's index whether the weights are of the variant with references."""
    entry = read_json(folder / INDEX_FILE).get("unet")
    if not isinstance(entry, list) or len(entry) != 2:
        raise InputError(f"{folder / INDEX_FILE} does not name a UNet: it is not in the published layout")
    return entry[0] != "diffusers"


def layout_config(folder: Path, *, reference_attention: bool, lora_rank: int | None = None) -> NetworkConfig:
    """Translate the configuration files of a layout.

    Args:
        reference_attention: See `NetworkConfig`.
        lora_rank: Rank of the adapters where the autoencoder's configuration does not decide it.

    Raises:
        InputError: If a file is absent or names an architecture that is not Difix's.
    """
    if not is_layout(folder):
        raise InputError(f"{folder} has no {INDEX_FILE}: it is not in the published layout")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet_path, vae_path = folder / "unet" / "config.json", folder / "vae" / "config.json"
    unet_values, vae_values = read_json(unet_path), read_json(vae_path)
    levels = len(vae_values.get("block_out_channels", ()))
    vae_expected = {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    unet = _translated(unet_values, UNET_FIELDS, _defaults(UNet2DConditionModel), unet_path)
    vae = _translated(vae_values, VAE_FIELDS, _defaults(AutoencoderKL) | vae_expected, vae_path)
    unet["upcast_attention"] = bool(unet["upcast_attention"])
    if isinstance(unet["num_heads"], int):
        unet["num_heads"] = (unet["num_heads"],) * len(unet["block_out_channels"])
    if lora_rank is not None:
        vae["lora_rank"] = lora_rank
    try:
        return NetworkConfig(
            unet=UNetConfig(**unet),
            vae=VaeConfig(**({"gamma": 1.0, "ignore_skip": False, "lora_rank": 0} | vae)),
            reference_attention=reference_attention,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"the configuration of {folder} is not one of Difix: {error}") from error


def _translated(values: dict[str, Any], fields: dict[str, str], defaults: dict[str, Any], path: Path) -> dict[str, Any]:
    merged = defaults | {name: value for name, value in values.items() if not name.startswith("_")}
    problems = [
        f"{name} = {merged[name]!r}"
        for name in merged
        if name not in fields and name not in INERT and merged[name] != defaults.get(name)
    ]
    if problems:
        raise InputError(f"{path} asks for what Difix has not: {first_problems(problems)}")
    known = {ours: merged[name] for name, ours in fields.items() if name in merged}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}


def _defaults(model: type) -> dict[str, Any]:
    parameters = inspect.signature(model.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def weights_path(folder: Path, part: str) -> Path:
    """Return where a layout holds the weights of the `unet` or the `vae`."""
    return folder / part / "diffusion_pytorch_model.safetensors"


def _has_adapters(vae: Mapping[str, Tensor]) -> bool:
    return any(".lora_A." in name for name in vae)


def base_vae(folder: Path, config: NetworkConfig) -> dict[str, Tensor]:
    """Return the autoencoder of a layout without skip convolutions and adapters, with `base_layer` names."""
    stored = read_tensors(weights_path(folder, "vae"))
    plain = {
        _new_attention_name(name.replace(".base_layer.", ".")): value
        for name, value in stored.items()
        if "lora" not in name and "skip_conv" not in name
    }
    flat = {
        name: value.flatten(1) if ".attentions." in name and value.ndim == 4 else value for name, value in plain.items()
    }
    if not config.vae.lora_rank:
        return flat
    return add_base_layer_names(flat, empty_network(config).vae.lora_targets())


def _new_attention_name(name: str) -> str:
    if ".attentions." not in name:
        return name
    stem, _, last = name.rpartition(".")
    stem, _, layer = stem.rpartition(".")
    return f"{stem}.{OLD_ATTENTION_NAMES.get(layer, layer)}.{last}"


def assembled(
    config: NetworkConfig,
    unet: Mapping[str, Tensor],
    vae: Mapping[str, Tensor],
    *,
    source: Path | str,
    dtype: torch.dtype,
) -> DifixNetwork:
    """Build a network from the parameters of its two parts.

    Raises:
        InputError: If names are missing or unexpected or shapes differ.
    """
    state = {f"unet.{name}": value for name, value in unet.items()}
    state |= {f"vae.{name}": value for name, value in vae.items()}
    network = empty_network(config)
    load_strictly(network, state, source=source, dtype=dtype)
    return network.eval()
