"""Published weights: which folders belong to which model, and how their files are read. No pickle is ever opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diffsplat.config import Backbone, Control
from diffsplat.denoiser import NetworkKind
from diffsplat.errors import InputError, first_problems

HUB_ID = "chenguolin/DiffSplat"
"""The repository of the published weights."""

GSRECON_TAG = "gsrecon_gobj265k_cnp_even4"
ELEVEST_TAG = "elevest_gobj265k_b_C25"

ITERATION = re.compile(r"\d{6}")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
STATE_NAMES = ("model", "diffusion_pytorch_model")
"""Stems of the files that hold a network's weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedModel:
    """Where the parts of one published model lie."""

    kind: NetworkKind
    """Its network."""
    text_tag: str
    """Folder of the denoiser that is given a text."""
    image_tag: str
    """Folder of the denoiser that is also given an image."""
    gsvae_tag: str
    """Folder of the GSVAE."""
    family: str
    """Which image VAE the GSVAE was made from."""
    base: str
    """Repository of the base model: tokenizers, text encoders, scheduler and, unless `vae` is given, image VAE."""
    vae: str | None = None
    """Repository of the image VAE, where it is another."""
    guidance: float = 7.5
    """Default guidance with a text."""
    num_steps: int = 20
    """Default number of steps."""
    scheduler: str = "sde-dpmsolver++"
    """Default scheduler."""

    @property
    def ema_folder(self) -> str:
        """Name of the folder that holds the averaged denoiser."""
        return "unet_ema" if self.kind == "unet" else "transformer_ema"


IMAGE_GUIDANCE = 2.0
"""Default guidance with an image, for every model."""

PUBLISHED: dict[Backbone, PublishedModel] = {
    "sd15": PublishedModel(
        kind="unet",
        text_tag="gsdiff_gobj83k_sd15__render",
        image_tag="gsdiff_gobj83k_sd15_image__render",
        gsvae_tag="gsvae_gobj265k_sd",
        family="sd",
        base="stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    "pas": PublishedModel(
        kind="pixart",
        text_tag="gsdiff_gobj83k_pas_fp16__render",
        image_tag="gsdiff_gobj83k_pas_fp16_image__render",
        gsvae_tag="gsvae_gobj265k_sdxl_fp16",
        family="sdxl_fp16",
        base="PixArt-alpha/PixArt-Sigma-XL-2-512-MS",
        vae="madebyollin/sdxl-vae-fp16-fix",
        guidance=4.5,
    ),
    "sd35m": PublishedModel(
        kind="sd3",
        text_tag="gsdiff_gobj83k_sd35m__render",
        image_tag="gsdiff_gobj83k_sd35m_image__render",
        gsvae_tag="gsvae_gobj265k_sd3",
        family="sd3",
        base="stabilityai/stable-diffusion-3.5-medium",
        guidance=5.0,
        num_steps=28,
        scheduler="flow",
    ),
}


def control_tag(control: Control) -> str:
    """Folder of a ControlNet."""
    return f"gsdiff_gobj83k_sd15__render__{control}"


def tags_needed(name: Backbone, *, image: bool, control: Control | None, elevest: bool = False) -> list[str]:
    """Folders of the published repository that a use needs."""
    model = PUBLISHED[name]
    tags = [model.gsvae_tag, model.image_tag if image else model.text_tag]
    if control is not None:
        tags.append(control_tag(control))
    return tags + ([ELEVEST_TAG] if elevest else [])


def image_optional(root: Path, model: PublishedModel) -> bool:
    """Whether a folder brings one denoiser for prompts and images alike: that with an image, and its own base model.

    The published folders bring one for each.
    """
    return (root / "base").is_dir() and (root / model.image_tag).is_dir() and not (root / model.text_tag).is_dir()


def download_command(name: Backbone, *, image: bool = False, control: Control | None = None) -> str:
    """The command that fetches what a use needs."""
    more = (" --image" if image else "") + (f" --control {control}" if control else "")
    return f"diffsplat download --model {name}{more}"


def iteration_folder(root: Path, tag: str, *, iteration: int | None = None, fetch: str = "") -> Path:
    """The folder `<root>/<tag>/checkpoints/<six digits>`, the latest unless one is named.

    Raises:
        InputError: It is not there; the sentence names the command that fetches it.
    """
    checkpoints = root / tag / "checkpoints"
    found = (
        sorted(path.name for path in checkpoints.iterdir() if ITERATION.fullmatch(path.name))
        if (checkpoints.is_dir())
        else []
    )
    how = f": fetch it with `{fetch}`" if fetch else ""
    if iteration is not None:
        if f"{iteration:06d}" not in found:
            raise InputError(
                f"{checkpoints} has no iteration {iteration:06d}, only {', '.join(found) or 'nothing'}{how}"
            )
        return checkpoints / f"{iteration:06d}"
    if not found:
        raise InputError(f"{root} has no {tag}/checkpoints/<iteration>{how}")
    return checkpoints / found[-1]


def weight_files(folder: Path, *, fetch: str = "") -> list[Path]:
    """The files of a network's weights in a folder: one, or the shards that an index lists.

    Raises:
        InputError: There are none, a listed shard is missing, or there are pickles only.
    """
    how = f"; fetch it with `{fetch}`" if fetch else ""
    for stem in STATE_NAMES:
        single = folder / f"{stem}.safetensors"
        if single.is_file():
            return [single]
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            try:
                listed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise InputError(f"{index} is no index of shards: {error}") from error
            shards = [folder / Path(name).name for name in listed]
            missing = [shard.name for shard in shards if not shard.is_file()]
            if missing or not shards:
                raise InputError(f"{folder} lacks the shards {first_problems(missing or ['all'])}{how}")
            return shards
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []
    if pickles:
        raise InputError(
            f"{folder} holds pickled weights only ({first_problems(pickles)}), which are not opened because they can "
            "run code: give safetensors"
        )
    raise InputError(f"{folder} holds no model.safetensors or diffusion_pytorch_model.safetensors{how}")


def read_state(files: Iterable[Path]) -> dict[str, Tensor]:
    """All tensors of some safetensors files."""
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            state |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged or incomplete ({error}): fetch it again") from error
    return state


def load_into(network: nn.Module, state: dict[str, Tensor], *, where: Path | str) -> None:
    """Put weights into a network, exactly.

    Raises:
        InputError: Weights are missing or unexpected, or have another shape.
    """
    own = network.state_dict()
    problems = [f"{name} is missing" for name in sorted(own.keys() - state.keys())]
    problems += [f"{name} is unexpected" for name in sorted(state.keys() - own.keys())]
    problems += [
        f"{name} is {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    if problems:
        raise InputError(f"{where} does not fit the network: {first_problems(problems)}")
    network.load_state_dict(state)


_TINY_BLOCK = re.compile(r"tiny_decoder\.layers\.(\d+)\.conv\.0\.weight")
_TINY_CONV = re.compile(r"tiny_decoder\.layers\.(\d+)\.weight")


def tiny_decoder_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Size of the tiny decoder that weights are of: blocks between each two plain convolutions, and their width."""
    blocks = {int(m[1]): name for name in state if (m := _TINY_BLOCK.fullmatch(name))}
    convolutions = sorted(int(m[1]) for name in state if (m := _TINY_CONV.fullmatch(name)))
    counts, widths = [], []
    for begin, end in pairwise(convolutions):
        between = [index for index in blocks if begin < index < end]
        if between:
            counts.append(len(between))
            widths.append(state[blocks[between[0]]].shape[0])
    if not counts:
        return {}
    return {"num_decoder_blocks": tuple(counts), "decoder_block_out_channels": tuple(widths)}
