"""What each training of `diffsplat train` is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from commands import Groups
from diffsplat.training.config import (
    DenoiserTrainConfig,
    ElevEstTrainConfig,
    GeneratedObjectsConfig,
    GSReconTrainConfig,
    GSVAETrainConfig,
)
from train_runs import LoopConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectRun:
    """What every training on objects is told."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("out", "resume", "device")
    """Fields that may differ when a run is continued."""

    out: Path
    """The run folder: config.json, metrics.jsonl, checkpoints and, at the end, model."""

    resume: bool = False
    """Continue the run in the folder, under the same settings."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    """How the run proceeds."""

    objects: GeneratedObjectsConfig = field(default_factory=lambda: GeneratedObjectsConfig(size=256))
    """Generated objects to train on, and the size of the views."""

    gobjaverse: Path | None = None
    """A folder whose folders are objects of G-Objaverse, to train on instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GSReconRun(ObjectRun):
    """Train GSRecon: four views of objects to grids of Gaussians."""

    train: GSReconTrainConfig = field(default_factory=GSReconTrainConfig)
    """How it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GSVAERun(ObjectRun):
    """Train GSVAE, or its tiny decoder, on the grids of a trained GSRecon."""

    gsrecon: Path
    """Run folder of GSRecon."""

    vae_config: Path | None = None
    """A config.json of diffusers' AutoencoderKL, which says the size; Stable Diffusion's by default."""

    image_vae: Path | None = None
    """Weights of an image VAE of this size to start from (.safetensors); from nothing by default."""

    start: Path | None = None
    """Weights of a GSVAE to go on from (.safetensors), for example to train its tiny decoder."""

    train: GSVAETrainConfig = field(default_factory=GSVAETrainConfig)
    """How it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserRun(ObjectRun):
    """Train a denoiser by captions, with a trained GSRecon and GSVAE."""

    gsrecon: Path
    """Run folder of GSRecon."""

    gsvae: Path
    """Run folder of GSVAE."""

    base: Path
    """Folder of the base model: text encoder, tokenizer and noise levels."""

    network_config: Path
    """A config.json of the network (UNet, PixArt or Stable Diffusion 3), which says its size; its input channels are
    replaced."""

    start: Path | None = None
    """Weights to start from (.safetensors): those of a denoiser, or of the image model, whose input is widened by
    zeros. A ControlNet needs those of its denoiser."""

    image: bool = False
    """Train a network that also takes an image; the base model's image VAE encodes it."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(ema_decay=0.9999, ema_warmup="power"))
    """How the run proceeds."""

    captions: Path | None = None
    """A JSON file with the captions of G-Objaverse's objects by their folders' names."""

    train: DenoiserTrainConfig = field(default_factory=DenoiserTrainConfig)
    """How it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlNetRun(DenoiserRun):
    """Train a ControlNet for a trained denoiser with a text: depth or normal maps of the first view."""

    control: Literal["depth", "normal"] = "depth"
    """Which map; edges (canny) are not made here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ElevEstRun(ObjectRun):
    """Train ElevEst: from which height a picture was taken."""

    backbone: Path | None = None
    """Weights of DINOv2 with registers, in its hub's names, to start from (.safetensors); from nothing by default."""

    train: ElevEstTrainConfig = field(default_factory=ElevEstTrainConfig)
    """How it is trained."""


KINDS: dict[str, Any] = {
    "gsrecon": GSReconRun,
    "gsvae": GSVAERun,
    "denoiser": DenoiserRun,
    "controlnet": ControlNetRun,
    "elevest": ElevEstRun,
}
"""What can be trained, and with which flags."""

_ALWAYS = (
    "out", "resume", "device", "loop.max_steps", "train.batch_size", "train.optimizer.learning_rate", "objects.size",
    "objects.num_objects", "gobjaverse",
)  # fmt: skip
_DENOISER = ("gsrecon", "gsvae", "base", "network_config", "start", "captions")
GROUPS: dict[str, Groups] = {
    kind: {"what matters": (*_ALWAYS, *own)}
    for kind, own in {
        "gsrecon": (),
        "gsvae": ("gsrecon", "vae_config", "image_vae", "start", "train.tiny_decoder"),
        "denoiser": (*_DENOISER, "image"),
        "controlnet": (*_DENOISER, "control"),
        "elevest": ("backbone",),
    }.items()
}
"""What `--help` of each training shows; `--help all` shows the rest."""
