"""`sparsefusion reconstruct`: read an object, fit, checkpoint, write."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import ended
from commands.progress import console, progress_bar
from output_files import check_inputs_kept, check_links, output_place, write_text_whole, written_whole
from sparsefusion.config import DistillConfig, FieldConfig, ModelConfig
from sparsefusion.errors import InputError
from sparsefusion_app.cli import (
    CPU_IMAGE_SIZE,
    CPU_MAX_STEPS,
    CUDA_IMAGE_SIZE,
    CUDA_MAX_STEPS,
    ReconstructSettings,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from sparsefusion.checkpoints import SparseFusionModel
    from sparsefusion.data.colmap import WorldTransform
    from sparsefusion.data.sequence import ObjectSequence
    from sparsefusion.distill import Distillation

STATE = "state.pt"
"""The checkpoint."""

MAY_CHANGE = {"out", "resume", "stop_at", "checkpoint_every", "circle_frames", "splat_resolution"}
"""Flags that may differ when a run goes on."""

CHUNK = 5
"""Iterations between two looks at the clock."""

PUBLISHED_FUSION_START = 1000 / 3000
"""Share of the iterations after which samples of the diffusion model are fitted."""

CPU_SAMPLES = 24


def reconstruct(settings: ReconstructSettings) -> int:
    """Run the command and return 0.

    Raises:
        InputError: Something that was given is wrong.
        OSError: Something cannot be read or written.
    """
    import torch

    device = _device(settings, torch.cuda.is_available())
    sequence, chosen, transform = _read(settings, _image_size(settings, device))
    settings.out.mkdir(parents=True, exist_ok=True)
    check_links(settings.out)
    sources = [path for path in (settings.scene, settings.root) if path is not None]
    check_inputs_kept([settings.out / "metrics.json"], [p for s in sources for p in s.rglob("*") if p.is_file()])
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items() if k not in MAY_CHANGE}
    flags["inputs"], flags["device"] = list(chosen), device
    _check_folder(settings, flags)
    distillation = _start(settings, sequence, chosen, device)
    if settings.resume:
        _restore(distillation, settings.out / STATE)
    write_text_whole(output_place(settings.out, "config.json"), json.dumps(flags, indent=2) + "\n")
    with progress_bar() as progress:
        _train(settings, distillation, progress)
        if settings.stop_at is None or distillation.step >= distillation.config.max_steps:
            _write(settings, sequence, chosen, transform, distillation, progress)
    report, splat = settings.out / "report.html", settings.out / "splat.ply"
    following = ("splat-recon", "export", "--splat", splat, "--to", settings.out / "scene.html")
    ended(report if report.is_file() else settings.out, *(following if splat.is_file() else ()))
    return 0


def _device(settings: ReconstructSettings, has_cuda: bool) -> str:
    if settings.device == "cuda" and not has_cuda:
        raise InputError("--device cuda: this machine has no CUDA device that torch can use")
    return "cuda" if settings.device == "cuda" or (settings.device == "auto" and has_cuda) else "cpu"


def _image_size(settings: ReconstructSettings, device: str) -> int:
    if settings.image_size is not None:
        return settings.image_size
    return CUDA_IMAGE_SIZE if settings.has_networks or device == "cuda" else CPU_IMAGE_SIZE


def _read(settings: ReconstructSettings, size: int) -> tuple[ObjectSequence, list[int], WorldTransform | None]:
    """The object, its input photos, and how a COLMAP world was moved."""
    from sparsefusion.distill import choose_inputs

    transform = None
    if settings.scene is not None:
        from sparsefusion.data.colmap import read_colmap_object

        found = read_colmap_object(settings.scene, image_size=size)
        sequence, transform = found.sequence, found.transform
    elif settings.dataset == "generated":
        from sparsefusion.data.generated import generated_sequence

        sequence = generated_sequence(settings.index, image_size=size)
    elif settings.dataset == "co3d":
        from sparsefusion.data.co3d import Co3dCategory

        assert settings.root is not None
        sequence = Co3dCategory(settings.root, settings.category, image_size=size).read(settings.index)
    else:
        from sparsefusion.data.toy import read_toy

        assert settings.root is not None
        sequences = read_toy(settings.root, settings.category)
        if settings.index >= len(sequences):
            raise InputError(f"--index {settings.index}: {settings.category} has {len(sequences)} sequences, from 0")
        sequence = sequences[settings.index]
        if sequence.rgb.shape[-1] != size:
            raise InputError(f"{sequence.name} has images of {sequence.rgb.shape[-1]} pixels: give --image-size that")
    if settings.inputs:
        return sequence, list(settings.inputs), transform
    if settings.views > len(sequence):
        raise InputError(f"--views {settings.views}: {sequence.name} has only {len(sequence)} photos")
    return sequence, list(choose_inputs(len(sequence), settings.views, settings.index)), transform


def _check_folder(settings: ReconstructSettings, flags: dict[str, Any]) -> None:
    """A run is not mixed into another one, and goes on only under the flags that it was started with."""
    config = settings.out / "config.json"
    if not settings.resume:
        if (settings.out / STATE).exists() or config.exists():
            raise InputError(f"{settings.out} holds a run: go on with --resume, or choose another --out")
        return
    if not config.is_file():
        return
    try:
        before = json.loads(config.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{config} is damaged: {error}") from error
    now = json.loads(json.dumps(flags))
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise InputError(f"{settings.out} was started with other values of {', '.join(changed)}: repeat its flags")


def _model(settings: ReconstructSettings) -> tuple[SparseFusionModel | None, bool]:
    """The networks, and whether the diffusion model is among them."""
    if not settings.has_networks:
        return None, False
    from sparsefusion.checkpoints import SparseFusionModel, build_model, load_denoiser, load_eft, load_model, load_vae

    if settings.model is not None:
        return load_model(settings.model), True
    assert settings.eft is not None
    eft = load_eft(settings.eft)
    if settings.vldm is None or settings.vae is None:
        import torch

        with torch.device("meta"):  # Never run: only the transformer is.
            rest = build_model(ModelConfig())
        return SparseFusionModel(eft, rest.denoiser, rest.vae, ModelConfig()), False
    return SparseFusionModel(eft, load_denoiser(settings.vldm), load_vae(settings.vae), ModelConfig()), True


def _start(settings: ReconstructSettings, sequence: ObjectSequence, chosen: list[int], device: str) -> Distillation:
    from sparsefusion.reconstruct import start_distillation

    model, with_diffusion = _model(settings)
    size = sequence.rgb.shape[-1]
    if model is not None and size != model.config.image_size:
        raise InputError(f"the networks take images of {model.config.image_size} pixels: give --image-size that")
    quick = device == "cpu" and model is None
    max_steps = settings.max_steps or (CPU_MAX_STEPS if device == "cpu" else CUDA_MAX_STEPS)
    start = int(max_steps * PUBLISHED_FUSION_START)
    samples = settings.samples or (CPU_SAMPLES if device == "cpu" else FieldConfig().num_steps)
    return start_distillation(
        sequence,
        chosen,
        model,
        config=DistillConfig(
            max_steps=max_steps,
            diffusion_start=start,
            perceptual_start=start,
            image_size=size,
            render_size=settings.render_size or max(16, size // (4 if quick else 2)),
        ),
        field=FieldConfig(num_steps=samples, num_importance=samples),
        mode=settings.eft_mode,
        seed=settings.seed,
        with_diffusion=with_diffusion,
        device=device,
    )


def _restore(distillation: Distillation, path: Path) -> None:
    from sparsefusion.data.toy import load_tensors

    if not path.is_file():
        return
    try:
        distillation.load_state_dict(load_tensors(path))
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} is not a checkpoint of this run: {str(error).splitlines()[0]}") from error


def _train(settings: ReconstructSettings, distillation: Distillation, progress: Progress) -> None:
    last = distillation.config.max_steps
    if settings.stop_at is not None:
        last = min(last, settings.stop_at)
    bar = progress.add_task("Fitting", total=last, completed=distillation.step, note="")
    saved = distillation.step
    while distillation.step < last:
        mark = (distillation.step // settings.checkpoint_every + 1) * settings.checkpoint_every
        distillation.train_until(min(distillation.step + CHUNK, mark, last))
        progress.update(bar, completed=distillation.step)
        if distillation.step in (mark, last) and distillation.step != saved:
            _save(distillation, settings.out)
            saved = distillation.step


def _save(distillation: Distillation, folder: Path) -> None:
    import torch

    with written_whole(output_place(folder, STATE)) as partial:
        torch.save(distillation.state_dict(), partial)


def _write(
    settings: ReconstructSettings,
    sequence: ObjectSequence,
    chosen: list[int],
    transform: WorldTransform | None,
    distillation: Distillation,
    progress: Progress,
) -> None:
    from sparsefusion.results import Results

    results = Results(settings.out, sequence, chosen, distillation, transform)
    results.write_field()
    for at in progress.track(range(len(sequence)), description="render"):
        results.write_view(at)
    around = results.circle(settings.circle_frames)
    frames = [results.render_frame(around[at]) for at in progress.track(range(len(around)), description="film")]
    results.write_film(frames)
    count = results.write_splat(settings.splat_resolution)
    if not count:
        console.print("the field is empty: no splat was written", style="yellow")
    results.write_summary()
    for name, values in results.metrics()["scores"].items():
        ssim = "" if values["ssim"] is None else f", SSIM {values['ssim']:.3f}"
        console.print(f"{name}: PSNR {values['psnr']:.2f} dB{ssim}")
