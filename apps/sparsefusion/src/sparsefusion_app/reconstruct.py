"""`sparsefusion reconstruct`: read an object, fit, checkpoint, write."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import console, ended, progress_bar
from output_files import check_inputs_kept, check_links, output_place, write_text_whole, written_whole
from sparsefusion import InputError
from sparsefusion_app.cli import ReconstructSettings
from sparsefusion_app.start import load_networks, read_object, start_distillations

if TYPE_CHECKING:
    from rich.progress import Progress

    from sparsefusion import Distillation
    from sparsefusion.results import Results

STATE, COMPARED_STATE = "state.pt", "state_inputs_only.pt"
"""The checkpoints: of the distillation, and of the one that it is compared with."""

MAY_CHANGE = {"out", "resume", "stop_at", "checkpoint_every", "circle_frames", "splat_resolution"}
"""Flags that may differ when a run goes on."""

CHUNK = 5
"""Iterations between two looks at the clock."""


def reconstruct(settings: ReconstructSettings) -> int:
    """Run the command and return 0."""
    import torch

    from sparsefusion.perceptual import find_lpips
    from sparsefusion.results import Results

    device = _device(settings, torch.cuda.is_available())
    networks = load_networks(settings)
    sequence, chosen, transform = read_object(settings, networks.image_size(settings, device), networks)
    settings.out.mkdir(parents=True, exist_ok=True)
    check_links(settings.out)
    sources = [path for path in (settings.scene, settings.root) if path is not None]
    check_inputs_kept([settings.out / "metrics.json"], [p for s in sources for p in s.rglob("*") if p.is_file()])
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items() if k not in MAY_CHANGE}
    flags["inputs"], flags["device"] = list(chosen), device
    _check_folder(settings, flags)
    perceptual = find_lpips(device)
    distillation, compared = start_distillations(settings, networks, sequence, chosen, perceptual, device)
    runs = [(compared, COMPARED_STATE, "Fitting the photos alone"), (distillation, STATE, "Fitting")]
    if settings.resume:
        for run, state, _ in runs:
            if run is not None:
                _restore(run, settings.out / state)
    write_text_whole(output_place(settings.out, "config.json"), json.dumps(flags, indent=2) + "\n")
    with progress_bar() as progress:
        for run, state, title in runs:
            if run is not None:
                _train(settings, run, state, title, progress)
        if settings.stop_at is None or distillation.step >= distillation.config.max_steps:
            results = Results(
                settings.out, sequence, chosen, distillation, transform, inputs_only=compared, perceptual=perceptual
            )
            _write(settings, results, progress)
    report, splat = settings.out / "report.html", settings.out / "splat.ply"
    following = ("splat-recon", "export", "--splat", splat, "--to", settings.out / "scene.html")
    ended(report if report.is_file() else settings.out, *(following if splat.is_file() else ()))
    return 0


def _device(settings: ReconstructSettings, has_cuda: bool) -> str:
    if settings.device == "cuda" and not has_cuda:
        raise InputError("--device cuda: this machine has no CUDA device that torch can use")
    return "cuda" if settings.device == "cuda" or (settings.device == "auto" and has_cuda) else "cpu"


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


def _restore(distillation: Distillation, path: Path) -> None:
    from sparsefusion.data.toy import load_tensors

    if not path.is_file():
        return
    try:
        distillation.load_state_dict(load_tensors(path))
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} is not a checkpoint of this run: {str(error).splitlines()[0]}") from error


def _train(
    settings: ReconstructSettings, distillation: Distillation, state: str, title: str, progress: Progress
) -> None:
    last = distillation.config.max_steps
    if settings.stop_at is not None:
        last = min(last, settings.stop_at)
    bar = progress.add_task(title, total=last, completed=distillation.step, note="")
    saved = distillation.step
    while distillation.step < last:
        mark = (distillation.step // settings.checkpoint_every + 1) * settings.checkpoint_every
        distillation.train_until(min(distillation.step + CHUNK, mark, last))
        progress.update(bar, completed=distillation.step)
        if distillation.step in (mark, last) and distillation.step != saved:
            _save(distillation, settings.out / state)
            saved = distillation.step


def _save(distillation: Distillation, path: Path) -> None:
    import torch

    with written_whole(output_place(path.parent, path.name)) as partial:
        torch.save(distillation.state_dict(), partial)


def _write(settings: ReconstructSettings, results: Results, progress: Progress) -> None:
    results.write_field()
    for at in progress.track(range(len(results.sequence)), description="render"):
        results.write_view(at)
    around = results.circle(settings.circle_frames)
    frames = [results.render_frame(around[at]) for at in progress.track(range(len(around)), description="film")]
    results.write_film(frames)
    count = results.write_splat(around, frames, resolution=settings.splat_resolution)
    if not count:
        console.print("the field is empty: no splat was written", style="yellow")
    results.write_summary()
    for name, values in results.metrics()["scores"].items():
        shown = [f"PSNR {values['psnr']:.2f} dB"]
        shown += [f"{key.upper()} {values[key]:.3f}" for key in ("ssim", "flip", "lpips") if values[key] is not None]
        console.print(f"{name}: {', '.join(shown)}")
