"""Parts of a pipeline from published weights: denoiser, GSVAE, base model, ControlNet and ElevEst."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from diffsplat import checkpoints as published
from diffsplat.config import Backbone, Control, ElevEstConfig
from diffsplat.denoiser import MultiViewControlNet, MultiViewDenoiser, read_network_config
from diffsplat.elevest import ElevEst
from diffsplat.errors import InputError
from diffsplat.gsvae import FULL_SIZE_VAE, GSVAE, VAE_FAMILIES
from diffsplat.hub import BASE_FILES, repository_folder, tag_files
from diffsplat.pipeline import PipelineParts
from diffsplat.schedulers import FLOW_SHIFT
from diffsplat.stock import AutoencoderKL
from diffsplat.text import ClipTextEncoder, Sd3TextEncoder, T5TextEncoder, TextEncoder
from diffsplat.words import VOCABULARY_FILE, WordEncoder

EMBEDDED = "default"
"""Name of the weights that come with the package."""

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""Where they lie."""

DEFAULTS_FILE = "defaults.json"
"""In the base model's folder: guidance and number of steps where nothing else is asked for."""


def loaded_parts(
    source: Backbone | Path | str,
    *,
    image: bool,
    control: Control | None,
    elevest: bool,
    model: Backbone | None,
    base: Path | str | None,
    vae: Path | str | None,
    iteration: int | None,
    without_t5: bool,
    revision: str | None,
) -> PipelineParts:
    """Everything a pipeline needs; see `DiffSplatPipeline.from_pretrained`."""
    if str(source) == EMBEDDED and not Path(source).is_dir():
        source = _embedded_folder(control, elevest=elevest)
    name = _name_of(source, model)
    root = source
    if name is not None and str(source) in published.PUBLISHED and not Path(source).is_dir():
        root = published.HUB_ID
    if name is None:
        every = sorted({tag for spec in published.PUBLISHED.values() for tag in (spec.text_tag, spec.image_tag)})
        folder = repository_folder(root, ["*/checkpoints/*/config.json"], revision=revision)
        present: list[Backbone] = [
            key for key, spec in published.PUBLISHED.items() if (folder / spec.gsvae_tag).is_dir()
        ]
        if len(present) != 1:
            raise InputError(f"{source} holds {', '.join(present) or 'none'} of the models ({', '.join(every)}): "
                             "say which with model='sd15', 'pas' or 'sd35m'")  # fmt: skip
        name = present[0]
    if control is not None and (image or name != "sd15"):
        raise InputError("ControlNets are published for sd15 with a text only: leave out image, or take sd15")
    spec = published.PUBLISHED[name]
    fetch = published.download_command(name, image=image, control=control)
    tags = published.tags_needed(name, image=image, control=control, elevest=elevest)
    root = repository_folder(root, tag_files(tags), revision=revision, fetch=fetch)

    def tag_folder(tag: str) -> Path:
        wanted = iteration if tag in (spec.text_tag, spec.image_tag) else None
        return published.iteration_folder(root, tag, iteration=wanted, fetch=fetch)

    optional = published.image_optional(root, spec)
    denoiser_folder = tag_folder(spec.image_tag if image or optional else spec.text_tag) / spec.ema_folder
    denoiser = _denoiser(denoiser_folder, spec.kind, fetch)
    if denoiser.takes_image != (image or optional):
        raise InputError(f"{denoiser_folder} has {denoiser.in_channels} input channels, which is no model "
                         f"{'with' if image else 'without'} an image")  # fmt: skip
    own_base = root / "base"
    if base is None and own_base.is_dir():
        base = own_base
    base_folder = repository_folder(base or spec.base, BASE_FILES, fetch=fetch)
    vae_folder = _vae_folder(base_folder, vae or (spec.vae if base is None else None), fetch)
    vae_config = read_network_config(vae_folder / "config.json") if vae_folder is not None else None
    parts = PipelineParts(
        denoiser=denoiser,
        gsvae=_gsvae(tag_folder(spec.gsvae_tag), spec.family, vae_config, fetch),
        noise_schedule=noise_schedule(base_folder, spec.kind),
        text_encoder=text_encoder(base_folder, spec.kind, without_t5=without_t5, denoiser=denoiser),
        default_scheduler=spec.scheduler,
        default_steps=spec.num_steps,
        default_guidance=published.IMAGE_GUIDANCE if image else spec.guidance,
        image_optional=optional,
    )
    own = _defaults(base_folder)
    parts.default_guidance = float(own.get("image_guidance" if image else "guidance", parts.default_guidance))
    parts.default_steps = int(own.get("num_steps", parts.default_steps))
    parts.text_prediction = str(parts.noise_schedule.get("prediction_type", "epsilon"))
    side = int(denoiser.network.config["sample_size"])
    parts.input_res = side * parts.gsvae.downscaling
    parts.flow_shift = float(parts.noise_schedule.get("shift", FLOW_SHIFT))
    if image:
        if vae_folder is None:
            raise InputError(f"{base_folder} has no vae/: give the image VAE's folder or hub id")
        parts.image_vae = _image_vae(vae_folder, vae_config or {}, fetch)
    if control is not None:
        folder = tag_folder(published.control_tag(control)) / "controlnet"
        parts.controlnet = _controlnet(folder, fetch)
    if elevest:
        parts.elevest = _elevest(tag_folder(published.ELEVEST_TAG), fetch)
    return parts


def _embedded_folder(control: Control | None, *, elevest: bool) -> Path:
    """The weights that come with the package."""
    if control is not None or elevest:
        what = "ControlNet" if control is not None else "estimator of elevations"
        raise InputError(f"the embedded model has no {what}: take --model sd15, or leave it out")
    if not WEIGHTS_FOLDER.is_dir():
        raise InputError("this installation has no embedded weights: take sd15, pas or sd35m, or a folder")
    return WEIGHTS_FOLDER


def _defaults(base: Path) -> dict[str, Any]:
    """What a base model of one's own says of generation; published ones have no such file."""
    path = base / DEFAULTS_FILE
    return read_network_config(path) if path.is_file() else {}


def _name_of(source: Path | str, model: Backbone | None) -> Backbone | None:
    if model is not None:
        if model not in published.PUBLISHED:
            raise InputError(f"{model!r} is no model: take sd15, pas or sd35m")
        return model
    if str(source) in published.PUBLISHED and not Path(source).is_dir():
        return str(source)  # type: ignore[return-value]
    return None


def _denoiser(folder: Path, kind: str, fetch: str) -> MultiViewDenoiser:
    files = published.weight_files(folder, fetch=fetch)
    denoiser = MultiViewDenoiser.from_config(read_network_config(folder / "config.json"))
    if denoiser.kind != kind:
        raise InputError(f"{folder} holds a {denoiser.kind} network, and this model has a {kind} one")
    state = published.read_state(files)
    # Some releases write the position embedding, which is computed, with the weights.
    if kind == "pixart":
        state.pop("pos_embed.pos_embed", None)
    published.load_into(denoiser.network, state, where=folder)
    return denoiser


def _controlnet(folder: Path, fetch: str) -> MultiViewControlNet:
    files = published.weight_files(folder, fetch=fetch)
    network = MultiViewControlNet.from_config(read_network_config(folder / "config.json"))
    published.load_into(network.network, published.read_state(files), where=folder)
    return network


def _gsvae(folder: Path, family: str, vae_config: dict[str, Any] | None, fetch: str) -> GSVAE:
    state = published.read_state(published.weight_files(folder, fetch=fetch))
    config = vae_config or {**FULL_SIZE_VAE, **VAE_FAMILIES[family]}
    network = GSVAE(config, published.tiny_decoder_config(state))
    published.load_into(network, state, where=folder)
    network.vae.use_slicing = True
    return network


def _elevest(folder: Path, fetch: str) -> ElevEst:
    state = published.read_state(published.weight_files(folder, fetch=fetch))
    token = state.get("backbone.cls_token")
    if token is None:
        raise InputError(f"{folder} holds no ElevEst: it has no backbone.cls_token")
    dim = token.shape[-1]
    depth = 1 + max((int(key.split(".")[2]) for key in state if key.startswith("backbone.blocks.")), default=-1)
    network = ElevEst(ElevEstConfig(embed_dim=dim, depth=max(depth, 1), num_heads=max(1, dim // 64)))
    published.load_into(network, state, where=folder)
    return network


def _vae_folder(base: Path, vae: Path | str | None, fetch: str) -> Path | None:
    """The folder with the image VAE's config.json; None where the base model brings none."""
    if vae is None:
        return base / "vae" if (base / "vae" / "config.json").is_file() else None
    folder = repository_folder(vae, BASE_FILES, fetch=fetch)
    inner = folder / "vae"
    return inner if (inner / "config.json").is_file() else folder


def image_vae(base: Path) -> nn.Module:
    """The image VAE of a base model."""
    return _image_vae(base / "vae", read_network_config(base / "vae" / "config.json"), "")


def _image_vae(folder: Path, config: dict[str, Any], fetch: str) -> nn.Module:
    state = published.read_state(published.weight_files(folder, fetch=fetch))
    network = AutoencoderKL.from_config({key: value for key, value in config.items() if not key.startswith("_")})
    published.load_into(network, _renamed_attention(state), where=folder)
    return network


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _renamed_attention(state: dict[str, Any]) -> dict[str, Any]:
    """Weights of early VAEs, whose attention layers had other names."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if "attentions" in parts and len(parts) > 2 and parts[-2] in _OLD_ATTENTION:
            key = ".".join([*parts[:-2], _OLD_ATTENTION[parts[-2]], parts[-1]])
            value = value.reshape(value.shape[0], -1) if parts[-1] == "weight" else value
        renamed[key] = value
    return renamed


def noise_schedule(base: Path, kind: str) -> dict[str, Any]:
    """The noise levels of a base model."""
    path = base / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise InputError(f"{base} has no scheduler/scheduler_config.json, which holds the {kind} model's noise levels")
    return read_network_config(path)


def text_encoder(base: Path, kind: str, *, without_t5: bool, denoiser: MultiViewDenoiser) -> TextEncoder:
    """The text encoder of a base model.

    Raises:
        InputError: A part is missing or cannot be read.
    """
    if (base / "text_encoder" / VOCABULARY_FILE).is_file():
        return WordEncoder.from_folder(base / "text_encoder")
    from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

    def tokenizer(folder: str) -> Any:
        return _from_folder(AutoTokenizer, base / folder)

    def encoder(cls: Any, folder: str) -> nn.Module:
        published.weight_files(base / folder)
        return _from_folder(cls, base / folder, use_safetensors=True)

    if kind == "unet":
        return ClipTextEncoder(tokenizer=tokenizer("tokenizer"), encoder=encoder(CLIPTextModel, "text_encoder"))
    if kind == "pixart":
        return T5TextEncoder(tokenizer=tokenizer("tokenizer"), encoder=encoder(T5EncoderModel, "text_encoder"))
    clips = [encoder(CLIPTextModelWithProjection, folder) for folder in ("text_encoder", "text_encoder_2")]
    return Sd3TextEncoder(
        tokenizers=(
            tokenizer("tokenizer"),
            tokenizer("tokenizer_2"),
            None if without_t5 else tokenizer("tokenizer_3"),
        ),
        encoders=(clips[0], clips[1], None if without_t5 else encoder(T5EncoderModel, "text_encoder_3")),
        joint_dim=int(denoiser.network.config["joint_attention_dim"]),
    )


def _from_folder(cls: Any, folder: Path, **more: Any) -> Any:
    """One part by transformers, from a local folder, without any code of the repository."""
    if not folder.is_dir():
        raise InputError(f"{folder.parent} has no {folder.name}/, which the model's text encoder needs")
    try:
        return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **more)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{folder} cannot be read: {said}") from error
