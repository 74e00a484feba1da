"""Our network in the layout of the published weights, for every program that reads those."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from difix_model.config import BETA_END, BETA_START, NUM_TRAIN_TIMESTEPS, NetworkConfig, VaeConfig
from difix_model.errors import InputError
from difix_model.formats.checkpoint import Checkpoint, empty_network
from difix_model.formats.durable import write_whole
from difix_model.formats.model_card import model_card
from difix_model.formats.released import INDEX_FILE, UNET_FIELDS, weights_path
from difix_model.lora import ADAPTER, UNET_ADAPTER, add_base_layer_names
from difix_model.network import DifixNetwork
from difix_model.text import ENCODER_FOLDER, TOKENIZER_FOLDER, TextEncoder

EXTRAS_FILE = "difix_model.json"
"""What the layout has no place for: prompt and metadata. Other programs pass over it."""

ALPHA = VaeConfig().lora_alpha
RANK = VaeConfig().lora_rank
"""Alpha of the adapters in published weights, which no file states, and their rank."""

LATENT_SIDE, IMAGE_SIDE = 64, 768
"""`sample_size` of the published UNet and autoencoder; the released pipeline wants a value and ignores it."""

DIFFUSERS_VERSION = "0.25.1"
"""The version of diffusers that published weights name."""

COPIED_FILES = {TOKENIZER_FOLDER: ("*.json", "*.txt"), ENCODER_FOLDER: ("config.json", "model.safetensors")}
"""What makes up a text encoder."""

EMBEDDING_TOLERANCE = 5e-3
"""Largest difference, relative to the largest value, at which a text encoder counts as the one that made a prompt's
embedding: more than rounding to half precision makes, far less than another encoder would."""

INDEX: dict[str, Any] = {
    "_class_name": "DifixPipeline",
    "_diffusers_version": DIFFUSERS_VERSION,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "vae": ["autoencoder_kl", "AutoencoderKL"],
}

SCHEDULER: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": DIFFUSERS_VERSION,
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
    "beta_start": BETA_START,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "steps_offset": 1,
    "thresholding": False,
    "timestep_spacing": "trailing",
    "trained_betas": None,
    "variance_type": "fixed_small",
}


@dataclass(frozen=True, eq=False)
class PublishedParameters:
    """A network's parameters by the names of the published weights."""

    unet: dict[str, Tensor]
    vae: dict[str, Tensor]
    lora_targets: list[str]
    """Layers of the autoencoder that carry adapters."""

    config: NetworkConfig
    """The architecture that these parameters are of."""


def published_parameters(network: DifixNetwork, *, dtype: torch.dtype | None = None) -> PublishedParameters:
    """Return a network's parameters the way published weights hold theirs, with the same effect.

    Published weights have adapters on the decoder and none on the UNet: those of the UNet are folded in, and a decoder
    without any gets some that change nothing.

    Args:
        network: May be on the meta device, to learn names and shapes.
        dtype: Floating-point type that they get; None keeps each one's own.
    """
    unet_config, vae_config = network.config.unet, network.config.vae
    unet = dict(network.unet.state_dict())
    if unet_config.lora_rank:
        unet = _folded(unet, scaling=unet_config.lora_alpha / unet_config.lora_rank)
    targets = network.vae.lora_targets()
    vae = dict(network.vae.state_dict())
    if vae_config.lora_rank:
        factor = vae_config.lora_alpha / ALPHA
        vae = {name: value * factor if ".lora_B." in name and factor != 1.0 else value for name, value in vae.items()}
    vae_config = dataclasses.replace(vae_config, lora_rank=vae_config.lora_rank or RANK, lora_alpha=ALPHA)
    config = dataclasses.replace(network.config, unet=dataclasses.replace(unet_config, lora_rank=0), vae=vae_config)
    if not network.config.vae.lora_rank:
        vae = add_base_layer_names(vae, targets) | _idle_adapters(config, next(iter(vae.values())))
    return PublishedParameters(unet=_plain(unet, dtype), vae=_plain(vae, dtype), lora_targets=targets, config=config)


def save_layout(
    folder: Path | str,
    checkpoint: Checkpoint,
    *,
    text_encoder: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint in the layout of nvidia/difix and nvidia/difix_ref.

    It holds no code. Programs that run the code of the published repositories need those two files beside the weights.

    Args:
        folder: Must be absent or empty.
        text_encoder: Folder with the tokenizer and the text encoder to copy; must embed the prompt as the checkpoint
            does.
        dtype: Floating-point type on disk; None keeps each parameter's own.

    Raises:
        InputError: If the text encoder is another one, or the folder cannot be written.
    """
    check_text_encoder(checkpoint, text_encoder)
    parameters = published_parameters(checkpoint.network, dtype=dtype)
    config = parameters.config
    unet_class = "unet_2d_condition" if config.reference_attention else "diffusers"
    extras = {"prompt": checkpoint.prompt, "metadata": checkpoint.metadata.to_dict()}
    card = model_card(checkpoint, name=Path(folder).name, published_layout=True, dtype=dtype)
    folder = Path(folder)

    def write(partial: Path) -> None:
        for name in ("unet", "vae", "scheduler"):
            (partial / name).mkdir(parents=True)
        _write_json(partial / INDEX_FILE, INDEX | {"unet": [unet_class, "UNet2DConditionModel"]})
        _write_json(partial / "scheduler" / "scheduler_config.json", SCHEDULER)
        _write_json(partial / "unet" / "config.json", unet_description(config))
        _write_json(partial / "vae" / "config.json", vae_description(config))
        _write_json(partial / EXTRAS_FILE, extras)
        (partial / "README.md").write_text(card, encoding="utf-8")
        save_file(parameters.unet, weights_path(partial, "unet"))
        save_file(parameters.vae, weights_path(partial, "vae"))
        for part, patterns in (
            (TOKENIZER_FOLDER, ("*.json", "*.txt")),
            (ENCODER_FOLDER, ("config.json", "*.safetensors")),
        ):
            (partial / part).mkdir()
            for path in sorted(path for pattern in patterns for path in (text_encoder / part).glob(pattern)):
                shutil.copyfile(path, partial / part / path.name)

    write_whole(folder, write)


def check_text_encoder(checkpoint: Checkpoint, folder: Path) -> None:
    """Check that a folder's text encoder embeds a checkpoint's prompt as the checkpoint does."""
    stored = checkpoint.text_embedding.detach().float().cpu()
    made = TextEncoder(folder)(checkpoint.prompt)
    if made.shape == stored.shape and bool((made - stored).abs().max() <= EMBEDDING_TOLERANCE * stored.abs().max()):
        return
    raise InputError(
        f'the text encoder of {folder} does not give the embedding of "{checkpoint.prompt}" that the weights hold: '
        "name the one that they were trained with"
    )


def unet_description(config: NetworkConfig) -> dict[str, Any]:
    """Return the content of `unet/config.json`: every entry that diffusers knows."""
    described = {
        name: value
        for name, value in empty_network(config).unet.config.items()
        if not name.startswith("_") and name != "num_attention_heads"
    }
    ours = dataclasses.asdict(config.unet)
    known = {theirs: ours[name] for theirs, name in UNET_FIELDS.items()}
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": DIFFUSERS_VERSION,
        **described,
        **known,
        "num_attention_heads": None,
        "sample_size": LATENT_SIDE,
    }


def vae_description(config: NetworkConfig) -> dict[str, Any]:
    """Return the content of `vae/config.json`, with the three entries that only Difix has."""
    vae, levels = config.vae, len(config.vae.block_out_channels)
    description = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": DIFFUSERS_VERSION,
        "act_fn": "silu",
        "block_out_channels": vae.block_out_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "force_upcast": True,
        "gamma": vae.gamma,
        "ignore_skip": vae.ignore_skip,
        "in_channels": 3,
        "latent_channels": vae.latent_channels,
        "layers_per_block": vae.layers_per_block,
        "lora_rank": vae.lora_rank,
        "norm_num_groups": vae.norm_num_groups,
        "out_channels": 3,
        "sample_size": IMAGE_SIDE,
        "scaling_factor": vae.scaling_factor,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
    # Published files lack the entry, and the released code knows no other value.
    return description if vae.mid_block_attention else description | {"mid_block_add_attention": False}


def _folded(state: dict[str, Tensor], *, scaling: float) -> dict[str, Tensor]:
    """Fold adapters into the weights that they update, by the same arithmetic as `LoraLayer.merged`."""
    folded = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        layer, _, parameter = name.rpartition(".base_layer.")
        if layer and parameter == "weight":
            down, up = (state[f"{layer}.lora_{side}.{UNET_ADAPTER}.weight"].flatten(1) for side in "AB")
            precise = torch.promote_types(value.dtype, torch.float32)
            update = scaling * (up.to(precise) @ down.to(precise)).reshape(value.shape)
            value = value + update.to(value.dtype)
        folded[f"{layer}.{parameter}" if layer else name] = value
    return folded


def _idle_adapters(config: NetworkConfig, like: Tensor) -> dict[str, Tensor]:
    """Return adapters that change nothing: as PEFT starts them, one side random, the other zero."""
    generator = torch.Generator().manual_seed(0)
    adapters = {}
    for name, value in empty_network(config).vae.state_dict().items():
        if f".lora_A.{ADAPTER}." in name:
            drawn = torch.randn(value.shape, generator=generator) / config.vae.lora_rank
            adapters[name] = drawn.to(like.device, like.dtype)
        elif f".lora_B.{ADAPTER}." in name:
            adapters[name] = torch.zeros(value.shape, dtype=like.dtype, device=like.device)
    return adapters


def _plain(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {
        name: value.detach().to(value.device if value.is_meta else "cpu", dtype or value.dtype).contiguous().clone()
        for name, value in state.items()
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
