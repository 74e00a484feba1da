"""The parts of `first_gpu_run.py`, what matters most first; each writes what it has measured row by row."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from first_gpu_report import Report, Sizes
from first_gpu_speed import fixer_training, latency, objects, ssim, steps


def parity(sizes: Sizes, report: Report) -> None:
    """gsplat is compiled if need be; its pictures and gradients against the CPU rasterizer's."""
    from rasterizer import make_scene

    from splat_render import make_rasterizer
    from splat_render.rasterizer import RenderConfig

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
    from splat_recon import SyntheticConfig, generate_scene

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
    from splat_recon import SplatTrainer, TrainConfig, ViewSet, mcmc_config, normalized
    from splat_recon.evaluate import evaluate

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
    from difix3d import Experiment, RoundsConfig, RunFolder, RunSettings
    from splat_recon import write_scene

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


def precision(sizes: Sizes, report: Report) -> None:
    """How far fixed images are from those of the CPU: what tests may tolerate, by measurement."""
    from difix_model import DifixPipeline

    width, height = map(int, sizes.frame.split("x"))
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, height // 16, width // 16, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    rendered, references = smooth.permute(0, 2, 3, 1).split(1)
    expected = DifixPipeline.from_pretrained("default").fix(rendered, references, gate="off")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        pipeline = DifixPipeline.from_pretrained("default", device="cuda", dtype=dtype)
        found = pipeline.fix(rendered.to("cuda"), references.to("cuda"), gate="off").cpu()
        difference = 255 * (found - expected).abs()
        report.row(
            precision=str(dtype).removeprefix("torch."),
            **{"mean difference of 255": float(difference.mean()), "largest": float(difference.max())},
        )


PARTS: dict[str, Callable[[Sizes, Report], None]] = {
    "parity": parity,
    "training": training,
    "loop": loop,
    "latency": latency,
    "steps": steps,
    "ssim": ssim,
    "precision": precision,
    "tests": tests,
    "fixer_training": fixer_training,
    "objects": objects,
}
"""In the order of what they are worth on the first day."""
