"""How fast things are on a GPU: parts of `first_gpu_run.py`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from first_gpu_report import FLOORS_MS, REHEARSAL, Report, Sizes


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
    from splat_step import new_trainer, prepared

    scene, gaussians = prepared(None, sizes.image, sizes.gaussians, num_photos=8)
    trainer = new_trainer(scene, gaussians, device="cuda")
    bare, plain = BareLoop(gaussians, scene, trainer), BareLoop(gaussians, scene, trainer)

    def without_kernels() -> None:
        with _torchs_ssim():
            plain.run(sizes.timed_steps)

    contenders: dict[str, Callable[[], None]] = {
        "SplatTrainer": lambda: trainer.train_until(trainer.step + sizes.timed_steps),
        "bare gsplat loop, our SSIM": lambda: bare.run(sizes.timed_steps),
        "bare gsplat loop, SSIM in torch's operations": without_kernels,
    }
    if _has_fused_ssim(report):
        fused = BareLoop(gaussians, scene, trainer)
        fused._loss = _fused_ssims_loss
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


class BareLoop:
    """The least that trains on gsplat: its rasterization, the same loss, and Adam with the trainer's rates."""

    def __init__(self, gaussians: Any, scene: Any, trainer: Any) -> None:
        from splat_recon.losses import photometric

        self._loss = photometric
        self._parameters = {
            name: tensor.cuda().requires_grad_() for name, tensor in gaussians.clone().parameters().items()
        }
        rates = trainer.learning_rates()
        groups = [{"params": [tensor], "lr": rates[name]} for name, tensor in self._parameters.items()]
        self._adam = torch.optim.Adam(groups, eps=1e-15, fused=True)
        self._photos = [torch.from_numpy(view.rgb_u8).cuda().float() / 255 for view in scene.views]
        self._cameras = [view.camera for view in scene.views]
        self._step = 0

    def render(self, camera: Any) -> torch.Tensor:
        """One image."""
        import gsplat

        values = self._parameters
        colors, _, _ = gsplat.rasterization(
            means=values["means"],
            quats=values["quats_wxyz"],
            scales=values["log_scales"].exp(),
            opacities=values["logit_opacities"].sigmoid(),
            colors=torch.cat([values["sh0"], values["sh_rest"]], dim=1),
            viewmats=torch.as_tensor(camera.T_cam_world, dtype=torch.float32, device="cuda")[None],
            Ks=torch.as_tensor(camera.K, dtype=torch.float32, device="cuda")[None],
            width=camera.width,
            height=camera.height,
            sh_degree=3,
            packed=False,
        )
        return colors[0]

    def run(self, steps: int) -> None:
        """Train."""
        for _ in range(steps):
            index = self._step % len(self._photos)
            self._adam.zero_grad(set_to_none=True)
            self._loss(self.render(self._cameras[index]), self._photos[index], ssim_weight=0.2).backward()
            self._adam.step()
            self._step += 1


def objects(sizes: Sizes, report: Report) -> None:
    """Milliseconds of a denoising step of DiffSplat (four views, with guidance) and of SparseFusion; random weights."""
    from diffsplat import MultiViewDenoiser, TextCondition
    from diffsplat.denoiser import PLUCKER_CHANNELS
    from sparsefusion import Denoiser, UNetConfig

    dtype, num_objects, num_views, side = torch.bfloat16, 2, 4, 32
    if sizes is REHEARSAL:
        tiny = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
        blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
        blocks |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
        config = {"in_channels": 4 + PLUCKER_CHANNELS, "out_channels": 4, "cross_attention_dim": 32, **tiny, **blocks}
        makers = {"DiffSplat, UNet": lambda: MultiViewDenoiser.from_config(config)}
        small, side = UNetConfig(dim=8, dim_mults=(1, 2), cond_channels=4, num_heads=2, head_dim=4), 8
    else:
        makers = {
            "DiffSplat, UNet": lambda: MultiViewDenoiser.full_size("unet", with_image=False),
            "DiffSplat, PixArt": lambda: MultiViewDenoiser.full_size("pixart", with_image=False),
            "DiffSplat, SD3": lambda: MultiViewDenoiser.full_size("sd3", with_image=False),
        }
        small = UNetConfig()
    with torch.device("cuda"):
        x = torch.randn(num_objects * num_views, 64, side, side, dtype=dtype)
        times = torch.full((num_objects,), 500)
        cond = torch.randn(1, small.cond_channels, side, side)
    for name, make in makers.items():
        with torch.device("cuda"):
            denoiser = make().to("cuda", dtype).eval()
            config_of = denoiser.network.config
            width = config_of.get("joint_attention_dim") or config_of.get("caption_channels")
            embeds = torch.randn(num_objects, 77, width or config_of["cross_attention_dim"], dtype=dtype)
            pooled = torch.randn(num_objects, config_of.get("pooled_projection_dim") or 1, dtype=dtype)
        text = TextCondition(embeds=embeds, pooled=pooled)
        views = x[:, : denoiser.in_channels].contiguous()
        _timed_row(report, name, sizes, functools.partial(denoiser, views, times, text, num_views=num_views))
        del denoiser
    with torch.device("cuda"):
        unet = Denoiser(small).to("cuda").eval()
        latents, log_snr = torch.randn(1, small.latent_channels, side, side), torch.zeros(1)
    _timed_row(report, "SparseFusion, float32", sizes, lambda: unet(latents, log_snr, cond))


@torch.no_grad()
def _timed_row(report: Report, name: str, sizes: Sizes, run: Callable[[], Any]) -> None:
    torch.cuda.reset_peak_memory_stats()
    ms = _median_ms(run, sizes.repeats)
    report.row(network=name, **{"ms per step": ms, "peak GB": torch.cuda.max_memory_allocated() / 1e9})


def _median_ms(run: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of a call, once it has been made twice."""
    times = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times[2:])


@contextlib.contextmanager
def _torchs_ssim() -> Iterator[None]:
    from splat_recon import losses

    with mock.patch.object(losses, "fused_comparison", return_value=None):
        yield


def _has_fused_ssim(report: Report) -> bool:
    found = importlib.util.find_spec("fused_ssim") is not None
    if not found:
        report.note("fused-ssim is not installed; with it, it is compared as well.")
    return found


def _fused_ssims_loss(
    rendered: torch.Tensor, target: torch.Tensor, *, ssim_weight: float, pixel_weight: Any = None
) -> torch.Tensor:
    from fused_ssim import fused_ssim  # pyright: ignore[reportMissingImports]

    a, b = (image.permute(2, 0, 1)[None] for image in (rendered, target))
    similarity = fused_ssim(a, b, padding="valid")
    return (1 - ssim_weight) * (rendered - target).abs().mean() + ssim_weight * (1 - similarity)


def ssim(sizes: Sizes, report: Report) -> None:
    """Milliseconds of L1 and SSIM with their gradient, and how far values are from those of the CPU."""
    from splat_recon import losses

    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(*sizes.ssim_shape, 3, generator=generator) for _ in range(2)]
    leaf = images[0].clone().requires_grad_()
    losses.photometric(leaf, images[1], ssim_weight=0.2).backward()
    assert leaf.grad is not None
    rendered, target = (image.to("cuda") for image in images)
    ways: dict[str, Any] = {"torch's operations": losses.photometric}
    if losses.fused_comparison(rendered.device) is None:
        report.note("Triton's kernels are not in use: the log says why.")
    else:
        ways["Triton"] = losses.photometric
    if _has_fused_ssim(report):
        ways["fused-ssim"] = _fused_ssims_loss
    for name, loss in ways.items():
        image = rendered.clone().requires_grad_()

        def differentiated(loss: Any = loss, image: torch.Tensor = image) -> None:
            image.grad = None
            loss(image, target, ssim_weight=0.2).backward()

        with _torchs_ssim() if name == "torch's operations" else contextlib.nullcontext():
            ms = _median_ms(differentiated, sizes.repeats)
        assert image.grad is not None
        report.row(
            way=name,
            **{
                "ms": ms,
                "relative difference of the gradient": float((image.grad.cpu() - leaf.grad).norm() / leaf.grad.norm()),
                "pixels": sizes.ssim_shape[0] * sizes.ssim_shape[1],
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
