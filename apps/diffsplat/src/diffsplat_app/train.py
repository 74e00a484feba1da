"""`diffsplat train`: every network of DiffSplat, in run folders that can be killed anywhere."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from commands import ended, goes_on, run_command, verb_of
from diffsplat.errors import InputError
from diffsplat.training.config import (
    DenoiserTrainConfig,
    ElevEstTrainConfig,
    GeneratedObjectsConfig,
    GSReconTrainConfig,
    GSVAETrainConfig,
)
from train_runs import LoopConfig, NonFiniteLossError, RunFolder

if TYPE_CHECKING:
    from diffsplat.gsrecon import GSRecon
    from diffsplat.gsvae import GSVAE
    from train_runs import Loop


@dataclass(frozen=True, kw_only=True, slots=True)
class GSReconRun:
    """Train GSRecon: four views of objects to grids of Gaussians."""

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

    train: GSReconTrainConfig = field(default_factory=GSReconTrainConfig)
    """How it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GSVAERun:
    """Train GSVAE, or its tiny decoder, on the grids of a trained GSRecon."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("out", "resume", "device")
    """Fields that may differ when a run is continued."""

    out: Path
    """The run folder."""

    gsrecon: Path
    """Run folder of GSRecon."""

    vae_config: Path
    """A config.json of diffusers' AutoencoderKL, which says the size."""

    image_vae: Path | None = None
    """Weights of an image VAE of this size to start from (.safetensors); from nothing by default."""

    start: Path | None = None
    """Weights of a GSVAE to go on from (.safetensors), for example to train its tiny decoder."""

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

    train: GSVAETrainConfig = field(default_factory=GSVAETrainConfig)
    """How it is trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserRun:
    """Train a denoiser by captions, with a trained GSRecon and GSVAE."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("out", "resume", "device")
    """Fields that may differ when a run is continued."""

    out: Path
    """The run folder."""

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

    resume: bool = False
    """Continue the run in the folder, under the same settings."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(ema_decay=0.9999, ema_warmup="power"))
    """How the run proceeds."""

    objects: GeneratedObjectsConfig = field(default_factory=lambda: GeneratedObjectsConfig(size=256))
    """Generated objects to train on, and the size of the views."""

    gobjaverse: Path | None = None
    """A folder whose folders are objects of G-Objaverse, to train on instead."""

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
class ElevEstRun:
    """Train ElevEst: from which height a picture was taken."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("out", "resume", "device")
    """Fields that may differ when a run is continued."""

    out: Path
    """The run folder."""

    backbone: Path | None = None
    """Weights of DINOv2 with registers, in its hub's names, to start from (.safetensors); from nothing by default."""

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


def main(arguments: list[str]) -> int:
    """Train, show progress and print where the model lies."""
    verb, given = verb_of(
        KINDS,
        arguments,
        prog="diffsplat train",
        distribution="diffsplat-app",
        description="Train the parts of DiffSplat on generated objects, in runs that can be killed anywhere.",
    )
    return run_command(
        KINDS[verb],
        _train,
        given,
        prog=f"diffsplat train {verb}",
        distribution="diffsplat-app",
        failed=NonFiniteLossError,
        stopped="stopped; --resume goes on from the last checkpoint",
    )


def _train(run: Any) -> int:
    from train_runs import Loop

    run = replace(run, resume=goes_on(run.out, resume=run.resume, traces=("checkpoints", "model")))
    RunFolder(run.out).open(resume=run.resume)
    makers: dict[type, Any] = {
        GSReconRun: gsrecon_task, GSVAERun: gsvae_task, DenoiserRun: denoiser_task, ControlNetRun: denoiser_task,
        ElevEstRun: elevest_task,
    }  # fmt: skip
    task = makers[type(run)](run)
    _trained(Loop(task, run.out, run.loop, settings=run))
    ended(run.out / "model")
    return 0


def _trained(loop: Loop) -> None:
    from commands.progress import progress_bar

    with progress_bar() as progress:
        bar = progress.add_task("Training", total=loop.config.max_steps, completed=loop.step, note="")
        while not loop.done:
            loop.train_until(loop.step + 10)
            progress.update(bar, completed=loop.step)


def gsrecon_task(run: GSReconRun) -> Any:
    """What the loop trains."""
    from diffsplat.training.reconstruction import GSReconTask

    if run.objects.size % run.train.network.patch_size:
        raise InputError(
            f"views of {run.objects.size} pixels do not divide into patches of {run.train.network.patch_size}"
        )
    task = GSReconTask(run.train, _objects(run), perceptual=_perceptual(run.train.lpips_weight, run.device))
    task.model.to(run.device)
    return task


def gsvae_task(run: GSVAERun) -> Any:
    """What the loop trains."""
    from diffsplat.checkpoints import load_into, read_state
    from diffsplat.denoiser import read_network_config
    from diffsplat.gsvae import GSVAE
    from diffsplat.training.autoencoder import GSVAETask

    model = GSVAE(read_network_config(run.vae_config))
    if run.image_vae is not None:
        try:
            model.load_image_vae(read_state([run.image_vae]))
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{run.image_vae} does not fit {run.vae_config}: {str(error).splitlines()[0]}") from error
    if run.start is not None:
        load_into(model, read_state([run.start]), where=run.start)
    return GSVAETask(
        run.train, model.to(run.device), _gsrecon(run.gsrecon).to(run.device), _objects(run),
        perceptual=_perceptual(run.train.lpips_weight, run.device),
    )  # fmt: skip


CONTROL_WIDTHS = (16, 32, 96, 256)
"""Widths of the layers that bring a control map to the latents' size, as published: one more than the VAE halves it."""


def denoiser_task(run: DenoiserRun) -> Any:
    """What the loop trains: a denoiser, or a ControlNet for one."""
    from diffsplat.checkpoints import read_state
    from diffsplat.denoiser import (
        PLUCKER_CHANNELS,
        MultiViewControlNet,
        MultiViewDenoiser,
        load_widened,
        read_network_config,
    )
    from diffsplat.loading import image_vae, noise_schedule, text_encoder
    from diffsplat.schedulers import make_scheduler
    from diffsplat.training.denoising import DenoiserTask
    from diffsplat.training.diffusion import NoiseLevels

    gsvae = _gsvae(run.gsvae)
    config = read_network_config(run.network_config)
    config["in_channels"] = int(gsvae.vae.config["latent_channels"]) + PLUCKER_CHANNELS + int(run.image)
    config["sample_size"] = run.objects.size // gsvae.downscaling
    model = MultiViewDenoiser.from_config(config)
    if run.start is not None:
        load_widened(model, read_state([run.start]), where=run.start)
    levels = None
    if run.train.prediction != "flow":
        levels = NoiseLevels.of_diffusion(make_scheduler("ddim", noise_schedule(run.base, model.kind)))
    encoder = text_encoder(run.base, model.kind, without_t5=False, denoiser=model)
    parts: dict[str, Any] = {"levels": levels, "perceptual": _perceptual(run.train.render_weight, run.device)}
    modules = [model, gsvae, *encoder.modules()]
    trained: tuple[Any, ...] = (model,)
    make: Any = DenoiserTask
    if isinstance(run, ControlNetRun):
        from diffsplat.training.controlling import ControlNetTask

        if run.image or run.start is None or model.kind != "unet":
            raise InputError(
                "a ControlNet is trained for a UNet with a text: give its weights with --start, no --image"
            )
        widths = CONTROL_WIDTHS[: gsvae.downscaling.bit_length()]
        trained = (MultiViewControlNet.from_denoiser(model, embedding_channels=widths), model)
        modules.append(trained[0])
        make, parts["control"] = ControlNetTask, run.control
    elif run.image:
        parts["image_vae"] = image_vae(run.base)
        modules.append(parts["image_vae"])
    for module in modules:
        module.to(run.device)
    recon = _gsrecon(run.gsrecon).to(run.device)
    return make(run.train, *trained, gsvae, recon, encoder, _objects(run), **parts)


def elevest_task(run: ElevEstRun) -> Any:
    """What the loop trains."""
    from diffsplat.checkpoints import read_state
    from diffsplat.training.elevations import ElevEstTask

    backbone = None if run.backbone is None else read_state([run.backbone])
    task = ElevEstTask(run.train, _objects(run), backbone=backbone)
    task.model.to(run.device)
    return task


def _objects(run: Any) -> Any:
    """What is trained on."""
    if run.gobjaverse is None:
        from diffsplat.training.views import GeneratedViews

        return GeneratedViews(run.objects)
    from diffsplat.training.gobjaverse import GObjaverseViews

    captions: dict[str, str] = {}
    path = getattr(run, "captions", None)
    if path is not None:
        try:
            captions = {str(name): str(text) for name, text in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"{path} holds no captions: {error}") from error
    elif isinstance(run, DenoiserRun):
        raise InputError("--gobjaverse needs --captions: a denoiser is trained by them")
    if not run.gobjaverse.is_dir():
        raise InputError(f"there is no folder {run.gobjaverse}")
    folders = sorted(path for path in run.gobjaverse.iterdir() if path.is_dir())
    return GObjaverseViews(folders, run.objects.size, num_extra=run.objects.num_extra, captions=captions)


def _settings_of(folder: Path, name: str) -> dict[str, Any]:
    """The settings of a finished run of this command."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["settings"]
        return found[name] if name in found else found["train"][name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no run folder of this command: {error}") from error


def _gsrecon(folder: Path) -> GSRecon:
    from diffsplat.checkpoints import load_into, read_state, weight_files
    from diffsplat.config import GSReconConfig
    from diffsplat.gsrecon import GSRecon

    model = GSRecon(GSReconConfig(**_settings_of(folder, "network")))
    load_into(model, read_state(weight_files(folder / "model")), where=folder / "model")
    return model


def _gsvae(folder: Path) -> GSVAE:
    from diffsplat.checkpoints import load_into, read_state, tiny_decoder_config, weight_files
    from diffsplat.denoiser import read_network_config
    from diffsplat.gsvae import GSVAE

    state = read_state(weight_files(folder / "model"))
    model = GSVAE(read_network_config(Path(_settings_of(folder, "vae_config"))), tiny_decoder_config(state))  # type: ignore[arg-type]
    load_into(model, state, where=folder / "model")
    return model


def _perceptual(weight: float, device: str) -> Any:
    """LPIPS with VGG16, where torch hub's folder has its weights; otherwise training goes without it, and says so."""
    if not weight:
        return None
    import torch

    found = list((Path(torch.hub.get_dir()) / "checkpoints").glob("vgg16-*.pth"))
    if not found:
        print("LPIPS is left out: torch hub's folder has no weights of VGG16", file=sys.stderr)
        return None
    from lpips import LPIPS

    network = LPIPS(net="vgg", verbose=False).eval().requires_grad_(False).to(device)
    return lambda one, two: network(one, two).flatten()
