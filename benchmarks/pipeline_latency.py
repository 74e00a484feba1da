"""Milliseconds per frame of the fixer, from uint8 in to uint8 out, as a markdown table.

On a CPU it runs the embedded weights; on CUDA the full-size architecture at random weights (what a frame costs does not
depend on the values). Machines differ and are noisy: compare rows of one run, not runs.

    uv run python benchmarks/pipeline_latency.py
    uv run python benchmarks/pipeline_latency.py --device cuda --architecture full --dtypes bfloat16 --sizes 1024x576
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from difix_model.pipeline import DifixPipeline


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--architecture", choices=["embedded", "full"], default="embedded")
    parser.add_argument("--sizes", nargs="+", default=["256x192", "512x384"], help="WIDTHxHEIGHT")
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    return parser.parse_args()


def make_pipeline(architecture: str, device: str, dtype: torch.dtype) -> DifixPipeline:
    import torch

    from difix_model.checkpoint import Checkpoint
    from difix_model.config import PROMPT, NetworkConfig
    from difix_model.network import DifixNetwork
    from difix_model.pipeline import DifixPipeline

    if architecture == "embedded":
        return DifixPipeline.from_pretrained("default", device=device, dtype=dtype)
    torch.manual_seed(0)
    with torch.device(device):
        network = DifixNetwork(NetworkConfig())
    embedding = torch.randn(77, network.config.unet.cross_attention_dim)
    checkpoint = Checkpoint(network=network, text_embedding=embedding, prompt=PROMPT, metadata={})
    return DifixPipeline(checkpoint, device=device, dtype=dtype, batch_size=64)


def milliseconds(pipeline: DifixPipeline, *, width: int, height: int, views: int, batch: int, repeats: int):
    """Time per frame of each repeat, after two to warm up."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(batch)]
    references = None if views == 1 else [list(images[:1]) * (views - 1) for _ in range(batch)]
    times = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        pipeline(images, references)
        if pipeline.device.type == "cuda":
            torch.cuda.synchronize()
        if repeat >= 2:
            times.append((time.perf_counter() - start) * 1e3 / batch)
    return times


def peak_memory_gb(device: str) -> float:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    print(f"{options.architecture} architecture on {options.device}, torch {torch.__version__}")
    print("\n| size | views | batch | dtype | p50 ms | p95 ms | peak GB |\n|---|---|---|---|---|---|---|")
    for dtype in options.dtypes:
        pipeline = make_pipeline(options.architecture, options.device, getattr(torch, dtype))
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            for views in (1, 2):
                for batch in options.batches:
                    times = milliseconds(
                        pipeline, width=width, height=height, views=views, batch=batch, repeats=options.repeats
                    )
                    p95 = sorted(times)[min(len(times) - 1, round(0.95 * len(times)))]
                    print(
                        f"| {size} | {views} | {batch} | {dtype} | {statistics.median(times):.1f} | {p95:.1f} "
                        f"| {peak_memory_gb(options.device):.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
