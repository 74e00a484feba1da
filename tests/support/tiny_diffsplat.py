"""Tiny repositories of the published layout of DiffSplat and of the base models, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from diffsplat import GSVAE, ElevEst, ElevEstConfig, MultiViewControlNet, MultiViewDenoiser
from diffsplat.checkpoints import ELEVEST_TAG, PUBLISHED, control_tag
from diffsplat.config import Backbone
from diffsplat.stock import AutoencoderKL

WIDTH = 32
"""Of the text encoders' tokens."""

VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
FAMILY = {
    "sd15": {"latent_channels": 4, "scaling_factor": 0.18215},
    "pas": {"latent_channels": 4, "scaling_factor": 0.13025},
    "sd35m": {
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}
DENOISERS: dict[str, dict[str, Any]] = {
    "sd15": {
        "_class_name": "UNetMV2DConditionModel",
        "sample_size": 8,
        "out_channels": 4,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "down_block_types": ["CrossAttnDownBlockMV2D", "DownBlock2D"],
        "mid_block_type": "UNetMidBlockMV2DCrossAttn",
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlockMV2D"],
        "view_concat_condition": False,
        "input_concat_plucker": True,
        "input_concat_binary_mask": False,
    },
    "pas": {
        "_class_name": "PixArtTransformerMV2DModel",
        "sample_size": 8,
        "out_channels": 8,
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": WIDTH,
        "use_additional_conditions": False,
        "norm_elementwise_affine": False,
    },
    "sd35m": {
        "_class_name": "SD3TransformerMV2DModel",
        "sample_size": 8,
        "patch_size": 2,
        "out_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 2 * WIDTH,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 2 * WIDTH,
        "pos_embed_max_size": 8,
        "dual_attention_layers": [0],
        "qk_norm": "rms_norm",
    },
}
SCHEDULERS = {
    "sd15": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000},
    "pas": {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000},
    "sd35m": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
}


def randomized(network: nn.Module, seed: int) -> nn.Module:
    """Weights in which every part matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 1 + 0.1 * noise)
    return network


def write_weights(folder: Path, network: nn.Module, *, stem: str, shards: int = 1) -> None:
    """One file of weights, or shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    if shards == 1:
        save_file(state, folder / f"{stem}.safetensors", metadata={"format": "pt"})
        return
    names = sorted(state)
    weight_map = {}
    for index in range(shards):
        shard = f"{stem}-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = names[index::shards]
        save_file({name: state[name] for name in part}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_repository(
    root: Path, name: Backbone, *, image: bool = False, shards: int = 1, iteration: int = 13020
) -> None:
    """Denoiser, GSVAE and, for text with SD1.5, a depth ControlNet and ElevEst, laid out like the published ones."""
    spec = PUBLISHED[name]
    config = DENOISERS[name] | {"in_channels": int(FAMILY[name]["latent_channels"]) + 6 + int(image)}  # type: ignore[call-overload]
    denoiser = MultiViewDenoiser.from_config(config)
    randomized(denoiser, 1)
    place = root / (spec.image_tag if image else spec.text_tag) / "checkpoints" / f"{iteration:06d}" / spec.ema_folder
    write_weights(place, denoiser.network, stem="diffusion_pytorch_model", shards=shards)
    (place / "config.json").write_text(json.dumps(config))
    gsvae = GSVAE(VAE | FAMILY[name], {"num_decoder_blocks": (1, 1), "decoder_block_out_channels": (8, 8)})
    randomized(gsvae, 2)
    write_weights(root / spec.gsvae_tag / "checkpoints" / "030000", gsvae, stem="model")
    if name == "sd15" and not image:
        controlnet = MultiViewControlNet.from_config(config | {"conditioning_embedding_out_channels": [4, 8]})
        randomized(controlnet, 3)
        place = root / control_tag("depth") / "checkpoints" / "020000" / "controlnet"
        write_weights(place, controlnet.network, stem="diffusion_pytorch_model")
        (place / "config.json").write_text(json.dumps(config | {"conditioning_embedding_out_channels": [4, 8]}))
    if name == "sd15":
        elevest = ElevEst(ElevEstConfig(embed_dim=64, depth=1, num_heads=1))
        randomized(elevest, 4)
        write_weights(root / ELEVEST_TAG / "checkpoints" / "040000", elevest, stem="model")


def write_base(root: Path, name: Backbone) -> None:
    """A base model: tokenizers, text encoders, image VAE, scheduler."""
    (root / "scheduler").mkdir(parents=True)
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[name]))
    config = VAE | FAMILY[name] | {"in_channels": 3, "out_channels": 3}
    vae = AutoencoderKL.from_config({key: value for key, value in config.items() if key[0] != "_"})
    randomized(vae, 5)
    write_weights(root / "vae", vae, stem="diffusion_pytorch_model")
    (root / "vae" / "config.json").write_text(json.dumps(config))
    if name == "sd15":
        write_clip(root, "", projection=False)
    elif name == "pas":
        write_t5(root, "", WIDTH)
    else:
        write_clip(root, "", projection=True)
        write_clip(root, "_2", projection=True)
        write_t5(root, "_3", 2 * WIDTH)


def write_clip(root: Path, ending: str, *, projection: bool) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*letters, *[letter + "</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    folder = root / f"tokenizer{ending}"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = special | {"pad_token": "!", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=WIDTH, bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1,
        pad_token_id=0,
    )  # fmt: skip
    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    randomized(model, 6)
    folder = root / f"text_encoder{ending}"
    config.save_pretrained(folder)
    write_weights(folder, model, stem="model")


def write_t5(root: Path, ending: str, width: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "a", "red", "ball", "blue", "box"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(root / f"tokenizer{ending}")
    config = T5Config(
        vocab_size=len(vocabulary), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    model = T5EncoderModel(config)
    randomized(model, 7)
    folder = root / f"text_encoder{ending}"
    config.save_pretrained(folder)
    write_weights(folder, model, stem="model")


def write_clip_model(folder: Path) -> Path:
    """A whole CLIP, images and texts, with its tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    write_clip(folder, "", projection=False)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / "tokenizer" / name).rename(folder / name)
    settings = json.loads((folder / "text_encoder" / "config.json").read_text())
    kept = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small | {key: settings[key] for key in kept},
        vision_config=small | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    randomized(model := CLIPModel(config), 8)
    config.save_pretrained(folder)
    write_weights(folder, model, stem="model")
    return folder
