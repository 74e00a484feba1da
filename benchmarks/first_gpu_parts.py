"""The parts of `first_gpu_run.py`, what matters most first; each writes what it has measured row by row."""

from __future__ import annotations

import dataclasses
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FLOORS_MS = {"1": 13.4, "2 cached": 17.7}
"""By arithmetic alone, for the full-size network at 1024x576 on an H200, without a reference and with a known one."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    gaussians: int = 500_000
    parity_gaussians: int = 20_000
    image: int = 1024
    parity_image: int = 256
    train_steps: int = 2000
    scene_views: int = 24
    scene_width: int = 320
    loop_steps: int = 600
    timed_steps: int = 500
    rounds: int = 3
    frame: str = "1024x576"
    architecture: str = "full"
    compile_modes: tuple[str, ...] = ("no", "default", "max-autotune")
    repeats: int = 20
    fixer_size: int = 512
    fixer_steps: int = 5
    fixer_preset: str = "sd-turbo"
    tests: tuple[str, ...] = ("-m", "gpu", "--run-slow", "-n", "0", "-q")


SIZES = Sizes()
REHEARSAL = Sizes(
    gaussians=60,
    parity_gaussians=50,
    image=20,
    parity_image=20,
    train_steps=8,
    scene_views=6,
    scene_width=24,
    loop_steps=9,
    timed_steps=2,
    rounds=1,
    frame="32x32",
    architecture="embedded",
    compile_modes=("no",),
    repeats=1,
    fixer_size=32,
    fixer_steps=1,
    fixer_preset="tiny",
    tests=("--version",),
)


class Report:
    """Rows and notes of a part; the files are written anew with each, so that none is lost."""

    def __init__(self, out: Path, name: str) -> None:
        self.folder = out / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def row(self, **values: Any) -> None:
        """Add a row; its names become columns."""
        self.rows.append(values)
        self._write()

    def note(self, text: str) -> None:
        """Add a sentence."""
        self.notes.append(text)
        self._write()

    def _write(self) -> None:
        self.folder.with_suffix(".json").write_text(
            json.dumps({"rows": self.rows, "notes": self.notes}, indent=1) + "\n", encoding="utf-8"
        )
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"] if columns else []
        lines += [f"| {' | '.join(_shown(row.get(name, '')) for name in columns)} |" for row in self.rows]
        self.folder.with_suffix(".md").write_text("\n".join([*lines, *["", *self.notes]]) + "\n", encoding="utf-8")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parity(sizes: Sizes, report: Report) -> None:
    """gsplat is compiled if need be; its pictures and gradients against the CPU rasterizer's."""
    from rasterizer import make_scene

    from splat_render.rasterizer import RenderConfig, make_rasterizer

    begun = time.perf_counter()
    make_rasterizer("cuda")
    report.note(f"gsplat was ready after {time.perf_counter() - begun:.1f} s, compiling included.")
    gaussians, camera = make_scene(sizes.parity_gaussians, sizes.parity_image)
    weights = torch.rand(camera.height, camera.width, 3, generator=torch.Generator().manual_seed(0))
    for config in (RenderConfig(), RenderConfig(antialiased=True), RenderConfig(packed=True)):
        found = []
        for device in ("cpu", "cuda"):
            own = gaussians.detach().to(device).mapped(lambda tensor: tensor.requires_grad_())
            suited = config if device == "cuda" else dataclasses.replace(config, packed=False)
            output = make_rasterizer(device, suited)(own, camera, sh_degree=3)
            (output.rgb * weights.to(device)).sum().backward()
            gradients = {name: tensor.grad for name, tensor in own.parameters().items()}
            found.append((output.rgb.detach().cpu(), {k: v.cpu() for k, v in gradients.items() if v is not None}))
        (rgb, gradients), (rgb_cuda, gradients_cuda) = found
        errors = {k: float((gradients_cuda[k] - v).norm() / v.norm()) for k, v in gradients.items()}
        worst = max(errors, key=lambda name: errors[name])
        report.row(
            settings="antialiased" if config.antialiased else "packed" if config.packed else "plain",
            **{
                "mean difference of pixels": float((rgb_cuda - rgb).abs().mean()),
                "largest": float((rgb_cuda - rgb).abs().max()),
                "worst relative difference of a gradient": errors[worst],
                "of": worst,
            },
        )


def _scene(sizes: Sizes) -> Any:
    from splat_recon.scene.synthetic import SyntheticConfig, generate_scene

    width = sizes.scene_width
    config = SyntheticConfig(
        layout="table",
        num_views=sizes.scene_views,
        width=width,
        height=3 * width // 4,
        num_points=max(40, 10 * width),
        samples_per_axis=1,
    )
    return generate_scene(5, config)


def training(sizes: Sizes, report: Report) -> None:
    """Splats on a generated scene, with both kinds of density control, and the first losses against the CPU's."""
    from splat_recon.config import TrainConfig, mcmc_config
    from splat_recon.evaluate import evaluate
    from splat_recon.scene.normalize import normalized
    from splat_recon.trainer import SplatTrainer
    from splat_recon.views.view_set import ViewSet

    scene = normalized(_scene(sizes))
    held_out, captured = scene.views[::8], [view for index, view in enumerate(scene.views) if index % 8]
    for name, base in (("adc", TrainConfig()), ("mcmc", mcmc_config(cap_max=sizes.gaussians))):
        config = dataclasses.replace(base.scaled_to(sizes.train_steps), log_every=1)
        trainers = [SplatTrainer(scene, ViewSet.from_views(captured), config, device=at) for at in ("cpu", "cuda")]
        for trainer in trainers:
            trainer.train_until(4)
        losses = [[record.loss for record in trainer.history] for trainer in trainers]
        trainer = trainers[1]
        torch.cuda.synchronize()
        begun = time.perf_counter()
        trainer.train_until(sizes.train_steps)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        scores = evaluate(lambda camera, trainer=trainer: trainer.render(camera).rgb, held_out)
        trainer.save(report.folder / f"{name}_checkpoint")
        report.row(
            strategy=name,
            steps=sizes.train_steps,
            **{
                "steps/s": (sizes.train_steps - 4) / seconds,
                "Gaussians": len(trainer.gaussians),
                "held-out PSNR": scores.psnr,
                "first loss, CPU": losses[0][0],
                "CUDA": losses[1][0],
                "fourth loss, CPU": losses[0][3],
                "CUDA ": losses[1][3],
            },
        )


def loop(sizes: Sizes, report: Report) -> None:
    """The whole method on a generated scene: rounds of rendering, fixing with the embedded weights, and training."""
    from difix3d import Experiment, RunFolder, RunSettings
    from difix3d.loop.config import RoundsConfig
    from splat_recon.io.colmap import write_scene

    folder = report.folder / f"run_{int(time.time())}"
    write_scene(report.folder / "scene", _scene(sizes))
    settings = RunSettings(
        scene=str(report.folder / "scene"),
        max_steps=sizes.loop_steps,
        split="every:3",
        device="cuda",
        loop="rounds",
        rounds=RoundsConfig(num_rounds=sizes.rounds),
    )
    begun = time.perf_counter()
    for _ in Experiment(settings, RunFolder(folder)).run():
        pass
    seconds = time.perf_counter() - begun
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    report.row(steps=sizes.loop_steps, rounds=sizes.rounds, seconds=seconds, **{"measurements written": len(lines)})


def tests(sizes: Sizes, report: Report) -> None:
    """The tests marked `gpu`."""
    done = subprocess.run([sys.executable, "-m", "pytest", *sizes.tests], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    report.row(tests=(done.stdout.strip().splitlines() or ["no output"])[-1], **{"exit code": done.returncode})
    if done.returncode:
        raise RuntimeError("tests failed; their output stands above")


def latency(sizes: Sizes, report: Report) -> None:
    """Milliseconds per frame of the fixer from bytes to bytes, in both memory layouts, and compiled."""
    from pipeline_latency import Row, measure

    base = Row(
        device="cuda", architecture=sizes.architecture, size=sizes.frame, dtype="bfloat16", repeats=sizes.repeats
    )
    rows = [dataclasses.replace(base, views=views) for views in ("1", "2 cached", "2")]
    rows += [dataclasses.replace(base, views=views, layout="contiguous") for views in ("1", "2 cached")]
    for mode in sizes.compile_modes[1:]:
        rows += [dataclasses.replace(base, views=views, compile=mode) for views in ("1", "2 cached")]
    for row in rows:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        values: dict[str, Any] = {name: getattr(row, name) for name in ("size", "views", "layout", "compile")}
        try:
            values |= measure(row)
        except Exception as error:  # What one setting cannot do does not cost the others.
            values["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        floor = FLOORS_MS.get(row.views) if row.size == "1024x576" else None
        report.row(**values, **({} if floor is None else {"floor ms": floor}))


def steps(sizes: Sizes, report: Report) -> None:
    """Training steps per second of `SplatTrainer` and of a bare loop around gsplat, in turns."""
    from splat_step import BareLoop, load_prepared, prepare

    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / "scene.npz"
        prepare(None, sizes.image, sizes.gaussians, prepared)
        scene, gaussians, trainer = load_prepared(prepared, device="cuda", num_photos=8)
    bare = BareLoop(gaussians, scene, trainer)
    contenders: dict[str, Callable[[], None]] = {
        "SplatTrainer": lambda: trainer.train_until(trainer.step + sizes.timed_steps),
        "bare gsplat loop, our SSIM": lambda: bare.run(sizes.timed_steps),
    }
    try:
        from fused_ssim import fused_ssim  # pyright: ignore[reportMissingImports]
    except ImportError:
        report.note("fused-ssim is not installed; with it, the bare loop runs with it as well.")
    else:
        fused = BareLoop(gaussians, scene, trainer)

        def loss(
            rendered: torch.Tensor, target: torch.Tensor, *, ssim_weight: float, pixel_weight: Any = None
        ) -> torch.Tensor:
            a, b = (image.permute(2, 0, 1)[None] for image in (rendered, target))
            similarity = fused_ssim(a, b, padding="valid")
            return (1 - ssim_weight) * (rendered - target).abs().mean() + ssim_weight * (1 - similarity)

        fused._loss = loss
        contenders["bare gsplat loop, fused-ssim"] = lambda: fused.run(sizes.timed_steps)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(4):
        for name, run in contenders.items():
            torch.cuda.synchronize()
            begun = time.perf_counter()
            run()
            torch.cuda.synchronize()
            if number:  # The first round compiles and brings photos over.
                speeds[name].append(sizes.timed_steps / (time.perf_counter() - begun))
    for name, values in speeds.items():
        report.row(
            loop=name,
            **{
                "steps/s, median of 3": statistics.median(values),
                "least": min(values),
                "most": max(values),
                "Gaussians": sizes.gaussians,
                "pixels": sizes.image**2,
            },
        )


def fixer_training(sizes: Sizes, report: Report) -> None:
    """Training steps of the network: adapters of rank 16, and all that the released code trains."""
    from train_step import LORA, Row, measure

    size = sizes.fixer_size
    for row in (Row(height=size, width=size, num_workers=2, **LORA), Row(height=size, width=size, num_workers=2)):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        values: dict[str, Any] = {"size": f"{size}x{size}", "trained": row.trainable, "precision": row.precision}
        row = dataclasses.replace(row, num_workers=0) if sizes is REHEARSAL else row
        with tempfile.TemporaryDirectory() as folder:
            values |= measure(row, "cuda", sizes.fixer_steps, Path(folder), preset_name=sizes.fixer_preset)
        report.row(**values)


PARTS: dict[str, Callable[[Sizes, Report], None]] = {
    "parity": parity,
    "training": training,
    "loop": loop,
    "latency": latency,
    "steps": steps,
    "tests": tests,
    "fixer_training": fixer_training,
}
"""In the order of what they are worth on the first day."""
