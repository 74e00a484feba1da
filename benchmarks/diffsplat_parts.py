"""Milliseconds and peak memory of DiffSplat's parts: text, denoising, decoding, rendering.

    uv run python benchmarks/diffsplat_parts.py                    # the embedded stack on a CPU
    uv run python benchmarks/diffsplat_parts.py --device cuda      # every backbone and precision at full size

At full size the weights are random, which changes no time: nothing is fetched. The table goes to the output, and with
`--out` as JSON into a file. The turntable is timed both ways: decoded once, and decoded for every frame as the released
code does it.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffsplat import GSVAE, DiffSplatPipeline, GenerationConfig, MultiViewDenoiser, PipelineParts, TextCondition
from diffsplat.checkpoints import PUBLISHED
from diffsplat.pipeline import orbit_frames
from diffsplat.schedulers import PIXART_NOISE_SCHEDULE, SD15_NOISE_SCHEDULE

KINDS: dict[str, Any] = {"sd15": "unet", "pas": "pixart", "sd35m": "sd3"}
TOKENS = {"sd15": (77, 768, 0), "pas": (300, 4096, 0), "sd35m": (333, 4096, 2048)}
"""Tokens, their width and that of the pooled vector."""


class Encoders:
    """Text encoders of the published sizes with random weights; tokens are random too."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

        self.networks: list[Any] = []
        wide = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
        narrow = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        sizes = {"sd15": [narrow], "pas": [], "sd35m": [narrow, wide]}[name]
        lengths = [77] * len(sizes)
        with torch.device(device):
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            self.networks += [CLIPTextModel(CLIPTextConfig(**size)) for size in sizes]  # type: ignore[arg-type]
            if name != "sd15":
                t5 = T5Config(
                    vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
                    feed_forward_proj="gated-gelu",
                )  # fmt: skip
                self.networks.append(T5EncoderModel(t5))
                lengths.append(300 if name == "pas" else 256)
            torch.set_default_dtype(before)
        self.tokens = [torch.randint(1, 30000, (2, length), device=device) for length in lengths]

    @torch.no_grad()
    def __call__(self) -> None:
        """Encode a prompt and the one to turn away from."""
        for network, tokens in zip(self.networks, self.tokens, strict=True):
            network.eval()(input_ids=tokens)


def full_size(name: str, device: str, dtype: torch.dtype) -> tuple[DiffSplatPipeline, TextCondition]:
    """A pipeline of the published size with random weights, and a random prompt."""
    spec = PUBLISHED[name]  # type: ignore[index]
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        denoiser = MultiViewDenoiser.full_size(KINDS[name], with_image=False)
        gsvae = GSVAE.for_family(spec.family)
        torch.set_default_dtype(before)
    schedule = PIXART_NOISE_SCHEDULE if name == "pas" else SD15_NOISE_SCHEDULE
    parts = PipelineParts(
        denoiser=denoiser, gsvae=gsvae, noise_schedule=schedule, default_scheduler=spec.scheduler,
        default_steps=spec.num_steps, default_guidance=spec.guidance,
    )  # fmt: skip
    length, width, pooled = TOKENS[name]
    text = TextCondition(
        embeds=torch.randn(1, length, width),
        mask=torch.ones(1, length, dtype=torch.long) if name == "pas" else None,
        pooled=torch.randn(1, pooled) if pooled else None,
    )
    return DiffSplatPipeline(parts, device=device, dtype=dtype), text


def measured(work: Callable[[], Any], device: str, repeats: int) -> dict[str, float]:
    """Median milliseconds after one warm-up, and peak memory in GB (of the process on a CPU)."""
    work()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"ms": statistics.median(times), "peak_gb": peak}


@torch.no_grad()
def parts_of(
    pipe: DiffSplatPipeline, text: TextCondition, encode: Callable[[], Any], device: str, *, repeats: int, frames: int
) -> dict[str, dict[str, float]]:
    """Every part of one generation at batch 1."""
    parts = pipe.parts
    config = GenerationConfig(seed=1)
    kept: dict[str, Any] = {}
    real = pipe.splats

    def keep_latents(latents: torch.Tensor, *more: Any, **named: Any) -> list[Any]:
        kept["latents"], kept["more"], kept["named"] = latents, more, named
        return []

    pipe.splats = keep_latents  # type: ignore[method-assign]
    found = {
        "text": measured(encode, device, repeats),
        "denoise": measured(lambda: pipe([" x"], config, text=text, negative=text), device, repeats),
    }
    pipe.splats = real  # type: ignore[method-assign]
    found["decode"] = measured(lambda: pipe.decode(kept["latents"]), device, repeats)
    (splat,) = pipe.splats(kept["latents"], *kept["more"], **kept["named"])
    size = 256
    found["render"] = measured(lambda: splat.render(splat.T_world_cam, size), device, repeats)
    poses = orbit_frames(frames, splat.elevation_deg)

    def decoded_once() -> None:
        (made,) = pipe.splats(kept["latents"], *kept["more"], **kept["named"])
        for pose in poses:
            made.render(pose[None], size)

    def decoded_per_frame() -> None:
        for pose in poses:
            (made,) = pipe.splats(kept["latents"], *kept["more"], **kept["named"])
            made.render(pose[None], size)

    found[f"turntable of {frames}"] = measured(decoded_once, device, 1)
    found[f"turntable of {frames}, decoded per frame"] = measured(decoded_per_frame, device, 1)
    assert parts.input_res % parts.gsvae.downscaling == 0
    return found


def rows(device: str, names: list[str], dtypes: list[str], *, repeats: int, frames: int) -> list[dict[str, Any]]:
    """All measurements."""
    found = []
    if device == "cpu":
        pipe = DiffSplatPipeline.from_pretrained()
        prompt = ["a red ball on a blue box"]
        parts = parts_of(
            pipe, pipe.encode_text(prompt), lambda: pipe.encode_text(prompt), device, repeats=repeats, frames=frames
        )
        return [{"model": "embedded", "dtype": "float32", "parts": parts}]
    for name in names:
        for dtype in dtypes:
            found.append({"model": name, "dtype": dtype, "parts": _full_size_parts(name, dtype, repeats, frames)})
            print_table(found[-1:])
            gc.collect()
            torch.cuda.empty_cache()
    return found


def _full_size_parts(name: str, dtype: str, repeats: int, frames: int) -> dict[str, dict[str, float]]:
    """One backbone in one precision; the encoders are timed with the rest in memory, as they are in a pipeline."""
    precision = getattr(torch, dtype)
    pipe, text = full_size(name, "cuda", precision)
    return parts_of(pipe, text, Encoders(name, "cuda", precision), "cuda", repeats=repeats, frames=frames)


def print_table(found: list[dict[str, Any]]) -> None:
    """One line per part."""
    for row in found:
        for part, values in row["parts"].items():
            print(f"| {row['model']} | {row['dtype']} | {part} | {values['ms']:.1f} ms | {values['peak_gb']:.2f} GB |")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float32", "float16", "bfloat16"), default=["float16", "bfloat16"]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file of the measurements")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = rows(options.device, options.models, options.dtypes, repeats=options.repeats, frames=options.frames)
    if options.device == "cpu":
        print_table(found)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
