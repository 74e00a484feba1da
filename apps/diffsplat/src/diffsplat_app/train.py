"""`diffsplat train`: every network of DiffSplat, in run folders that can be killed anywhere."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import ended, goes_on, run_command, verb_of
from diffsplat import InputError
from diffsplat_app.training_runs import (
    GROUPS,
    KINDS,
    ControlNetRun,
    DenoiserRun,
    ElevEstRun,
    GSReconRun,
    GSVAERun,
    ObjectRun,
)
from train_runs import NonFiniteLossError, RunFolder

if TYPE_CHECKING:
    from diffsplat import GSVAE, GSRecon
    from train_runs import Loop


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
        groups=GROUPS[verb],
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
    ended(run.out / "model", *following(run))
    return 0


def following(run: Any) -> list[str | Path]:
    """The command that goes on from a finished run."""
    start: list[str | Path] = ["diffsplat", "train"]
    if isinstance(run, GSReconRun):
        return [*start, "gsvae", "--gsrecon", run.out, *_same_objects(run), "--out", Path(f"{run.out}-gsvae")]
    if isinstance(run, GSVAERun) and not run.train.tiny_decoder:
        start += ["gsvae", "--train.tiny-decoder", "--gsrecon", run.gsrecon]
        if run.vae_config is not None:
            start += ["--vae-config", run.vae_config]
        start += ["--start", run.out / "model" / "model.safetensors", *_same_objects(run)]
        return [*start, "--out", Path(f"{run.out}-tiny")]
    if isinstance(run, GSVAERun):
        return [*start, "denoiser", "--help"]
    return ["diffsplat", "generate", "--help", "all"]


def _same_objects(run: ObjectRun) -> list[str | Path]:
    """Flags for the same objects, in views of the same size."""
    found: list[str | Path] = ["--objects.size", str(run.objects.size)]
    return found if run.gobjaverse is None else [*found, "--gobjaverse", run.gobjaverse]


def _trained(loop: Loop) -> None:
    from commands import progress_bar

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
    from diffsplat.training.autoencoder import GSVAETask

    model = _new_gsvae(run.vae_config)
    if run.image_vae is not None:
        try:
            model.load_image_vae(read_state([run.image_vae]))
        except (KeyError, RuntimeError) as error:
            size, why = run.vae_config or "the released size", str(error).splitlines()[0]
            raise InputError(f"{run.image_vae} does not fit {size}: {why}") from error
    if run.start is not None:
        load_into(model, read_state([run.start]), where=run.start)
    task = GSVAETask(
        run.train, model.to(run.device), _gsrecon(run.gsrecon).to(run.device), _objects(run),
        perceptual=_perceptual(run.train.lpips_weight, run.device),
    )  # fmt: skip
    if run.image_vae is None and run.start is None:
        task.begin_from_nothing()
    return task


CONTROL_WIDTHS = (16, 32, 96, 256)
"""Widths of the layers that bring a control map to the latents' size, as published: one more than the VAE halves it."""


def denoiser_task(run: DenoiserRun) -> Any:
    """What the loop trains: a denoiser, or a ControlNet for one."""
    from diffsplat import MultiViewControlNet, MultiViewDenoiser
    from diffsplat.checkpoints import read_state
    from diffsplat.denoiser import PLUCKER_CHANNELS, load_widened, read_network_config
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
    from diffsplat import GSRecon, GSReconConfig
    from diffsplat.checkpoints import load_into, read_state, weight_files

    model = GSRecon(GSReconConfig(**_settings_of(folder, "network")))
    load_into(model, read_state(weight_files(folder / "model")), where=folder / "model")
    return model


def _new_gsvae(config: Path | None, tiny: dict[str, Any] | None = None) -> GSVAE:
    from diffsplat import GSVAE
    from diffsplat.denoiser import read_network_config

    return GSVAE.for_family("sd") if config is None else GSVAE(read_network_config(config), tiny)


def _gsvae(folder: Path) -> GSVAE:
    from diffsplat.checkpoints import load_into, read_state, tiny_decoder_config, weight_files

    state = read_state(weight_files(folder / "model"))
    config: Any = _settings_of(folder, "vae_config")
    model = _new_gsvae(config and Path(config), tiny_decoder_config(state))
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
