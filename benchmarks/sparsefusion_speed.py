"""Milliseconds of a distillation iteration by part: two renders with their steps, encode, sample, decode.

    uv run python benchmarks/sparsefusion_speed.py                  # the small networks that come along
    uv run python benchmarks/sparsefusion_speed.py --published      # published sizes, random weights

On a CPU, process time is measured, so that other programs matter little. With `--published`, renders are measured there
on a quarter of the side and multiplied by sixteen, the same operations on as many more rays: a whole one takes
gigabytes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from sparsefusion import (
    DistillConfig,
    EftConfig,
    Field,
    FieldConfig,
    ModelConfig,
    build_model,
    depth_range,
    load_model,
    render_image,
)
from sparsefusion.checkpoints import EMBEDDED_MODEL, stable_diffusion_autoencoder
from sparsefusion.config import small_distillation, small_field
from sparsefusion.data.generated import HELD_OUT_SEED, generated_sequence
from sparsefusion.vae import ImageVae
from sparsefusion.vldm.diffusion import num_plms_steps

PUBLISHED_SHRINK = 4
"""Renders of published sizes are measured with so many times fewer rays per side on a CPU."""


def timed(run: Callable[[], object], device: str, repeats: int) -> float:
    """Milliseconds of one call, the first one left out."""
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device == "cuda" else time.process_time
    begun = clock()
    for _ in range(repeats):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (clock() - begun) / repeats


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", action="store_true", help="published sizes with random weights")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, repeats = options.device, options.repeats
    if options.published:
        model, config, field_config = build_model(ModelConfig()), DistillConfig(), FieldConfig()
        model = replace(model, vae=ImageVae(stable_diffusion_autoencoder()))
    else:
        model = load_model(EMBEDDED_MODEL)
        config = small_distillation(model.config.image_size)
        field_config = small_field(model.config.eft.depth_margin)
    eft, denoiser, vae = model.eft.to(device).eval(), model.denoiser.to(device).eval(), model.vae.to(device).eval()
    sequence = generated_sequence(HELD_OUT_SEED, image_size=config.image_size).to(device)
    field = Field(field_config).to(device)
    optimizer = torch.optim.Adam(field.parameters())
    size, factor = config.image_size, model.config.latent_factor
    camera, latents = sequence.cameras[0], torch.randn(1, 4, size // factor, size // factor, device=device)
    features = torch.randn(1, model.config.unet.cond_channels, size // factor, size // factor, device=device)
    image, level = sequence.rgb[:1], torch.zeros(1, device=device)

    def uniform(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, device=device)

    shrink = PUBLISHED_SHRINK if options.published and device == "cpu" else 1

    def step() -> None:
        out = render_image(field, camera, config.render_size // shrink, image_size=size, uniform=uniform)
        optimizer.zero_grad(set_to_none=True)
        (out.rgb.mean() + out.alpha.mean()).backward()
        optimizer.step()

    @torch.no_grad()
    def transformed() -> None:
        views = eft.encode(sequence.rgb[:2], sequence.cameras[:2])
        margin = EftConfig().depth_margin if options.published else eft.config.depth_margin
        eft(views, camera, depth_range(sequence.cameras, margin), size // factor, image_size=size)

    render = timed(step, device, repeats) * shrink**2
    with torch.no_grad():
        one = timed(lambda: denoiser(latents, level, features), device, repeats)
        encode = timed(lambda: vae.encode(2 * image - 1), device, repeats)
        decode = timed(lambda: vae.decode(latents), device, repeats)
    cached = timed(transformed, device, repeats)
    times = [(at + 0.5) / 100 * config.max_time for at in range(100)]
    counts = [num_plms_steps(start, config.num_sampling_steps) for start in times]
    calls = sum(count + 1 if count else 0 for count in counts) / len(counts)
    sample = calls * one
    print(f"{device}, {options.threads} thread(s), render {config.render_size}, image {size}, latents {size // factor}")
    print("| part | ms |\n|---|---|")
    how = f" (estimate: {shrink**2} times that of {config.render_size // shrink}x{config.render_size // shrink})"
    print(f"| one render with gradient and step{how if shrink > 1 else ''} | {render:.0f} |")
    print(f"| encode | {encode:.0f} |\n| one call of the denoiser | {one:.1f} |")
    print(f"| sample, {calls:.1f} calls in the mean (estimate) | {sample:.0f} |\n| decode | {decode:.0f} |")
    print(f"| iteration before samples (estimate) | {2 * render:.0f} |")
    print(f"| iteration with samples (estimate) | {2 * render + encode + sample + decode:.0f} |")
    print(f"| transformer, one view of the cache | {cached:.0f} |")


if __name__ == "__main__":
    main()
