"""Milliseconds per frame of the fixer, from uint8 in to uint8 out, with peak memory, as a markdown table and as JSON.

Every row runs in a process of its own: a base row per size and number of views, then rows that differ from the first
size's base in one thing. On a CPU it runs the embedded weights; on CUDA the full-size architecture at random weights
(what a frame costs does not depend on the values), with the aim beside the rows that have one. "cached" means that the
reference was seen before, as it is from the second frame of a video on. Ctrl-C ends it; rows that are done are kept.
Machines differ and are noisy: compare rows of one run, not runs.

    uv run python benchmarks/pipeline_latency.py
    uv run python benchmarks/pipeline_latency.py --device cuda --out runs/latency.json
    uv run python benchmarks/pipeline_latency.py --quick
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix_model import DifixPipeline

SIZES = {"cpu": ["256x192", "512x384"], "cuda": ["512x512", "1024x576", "1920x1080"]}
VIEWS = ("1", "2", "2 cached")

AIMS_MS = {("1024x576", "1", 1, "bfloat16"): 20.0, ("1024x576", "2 cached", 1, "bfloat16"): 28.0}
"""What an H200-class GPU should reach; the floors by arithmetic alone are 13.4 and 17.7 ms."""

COLUMNS = ("size", "views", "batch", "dtype", "layout", "compile", "p50 ms", "p95 ms", "peak MB", "aim ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is measured in one process."""

    device: str
    architecture: str
    size: str
    views: str = "1"
    batch: int = 1
    dtype: str = "float32"
    layout: str = "channels_last"
    compile: str = "no"
    repeats: int = 10
    threads: int = 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--architecture", choices=["auto", "embedded", "full"], default="auto")
    parser.add_argument("--sizes", nargs="+", help="WIDTHxHEIGHT")
    parser.add_argument("--dtypes", nargs="+", help="the first is that of the base rows")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], help="the first is that of the base rows")
    parser.add_argument(
        "--compile", nargs="+", default=["no"], help='no, default, or another mode such as "max-autotune"'
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    parser.add_argument("--quick", action="store_true", help="the smallest size only, three repeats, no variations")
    parser.add_argument("--out", type=Path, help="file for the rows as JSON")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


def planned_rows(options: argparse.Namespace) -> list[Row]:
    """Return the base rows of every size, then what differs from the first in one thing."""
    on_cuda = options.device.startswith("cuda")
    sizes = options.sizes or SIZES["cuda" if on_cuda else "cpu"]
    dtypes = options.dtypes or (["bfloat16", "float16", "float32"] if on_cuda else ["float32", "bfloat16"])
    architecture = ("full" if on_cuda else "embedded") if options.architecture == "auto" else options.architecture
    base = Row(
        device=options.device,
        architecture=architecture,
        size=sizes[0],
        batch=options.batches[0],
        dtype=dtypes[0],
        compile=options.compile[0],
        repeats=3 if options.quick else options.repeats,
        threads=options.threads,
    )
    if options.quick:
        return [dataclasses.replace(base, views=views) for views in VIEWS]
    rows = [dataclasses.replace(base, size=size, views=views) for size in sizes for views in VIEWS]
    varied = dataclasses.replace(base, size="1024x576" if "1024x576" in sizes else sizes[0])
    changes: list[dict[str, Any]] = [{"layout": "contiguous"}]
    changes += [{"batch": batch} for batch in options.batches[1:]]
    changes += [{"dtype": dtype} for dtype in dtypes[1:]]
    changes += [{"compile": mode} for mode in options.compile[1:]]
    return rows + [dataclasses.replace(varied, views=views, **change) for change in changes for views in VIEWS[::2]]


def make_pipeline(row: Row) -> DifixPipeline:
    import torch

    from difix_model import Checkpoint, DifixNetwork, DifixPipeline, NetworkConfig
    from difix_model.config import PROMPT

    settings: dict[str, Any] = {
        "device": row.device,
        "dtype": getattr(torch, row.dtype),
        "batch_size": row.batch,
        "channels_last": row.layout == "channels_last",
        "compile": False if row.compile == "no" else row.compile,
    }
    if row.views == "2":
        settings["cache_bytes"] = 0
    if row.architecture == "embedded":
        return DifixPipeline.from_pretrained("default", **settings)
    torch.manual_seed(0)
    with torch.device(row.device):
        network = DifixNetwork(NetworkConfig())
    embedding = torch.randn(77, network.config.unet.cross_attention_dim)
    return DifixPipeline(Checkpoint(network=network, text_embedding=embedding, prompt=PROMPT), **settings)


def measure(row: Row) -> dict[str, Any]:
    """Run a row in this process; two repeats more than asked for come first, to warm up and to compile."""
    import numpy as np
    import torch

    torch.set_num_threads(row.threads)
    pipeline = make_pipeline(row)
    width, height = map(int, row.size.split("x"))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(row.batch)]
    references = None if row.views == "1" else [image[::-1].copy() for image in images]
    on_cuda = pipeline.device.type == "cuda"
    before = peak_bytes(on_cuda=False)
    times = []
    for repeat in range(row.repeats + 2):
        start = time.perf_counter()
        pipeline(images, references)
        if on_cuda:
            torch.cuda.synchronize()
        if repeat >= 2:
            times.append((time.perf_counter() - start) * 1e3 / row.batch)
    times.sort()
    peak = peak_bytes(on_cuda=True) if on_cuda else peak_bytes(on_cuda=False) - before
    return {
        "p50 ms": statistics.median(times),
        "p95 ms": times[min(len(times) - 1, round(0.95 * len(times)))],
        "peak MB": peak / 1e6,
    }


def peak_bytes(*, on_cuda: bool) -> int:
    """Peak of what torch allocated on CUDA, weights included, or of the process's resident memory."""
    if on_cuda:
        import torch

        return torch.cuda.max_memory_allocated()
    # The system counts in KiB, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured_apart(row: Row) -> dict[str, Any]:
    """Measure a row in a process of its own; a row that fails says why."""
    command = [sys.executable, __file__, "--row", json.dumps(dataclasses.asdict(row))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def markdown(values: dict[str, Any]) -> str:
    cells = [f"{value:.1f}" if isinstance(value := values.get(name, ""), float) else str(value) for name in COLUMNS]
    return f"| {' | '.join(cells)} |" + (f" failed: {values['error']}" if "error" in values else "")


def main() -> None:
    options = arguments()
    if options.row:
        print(json.dumps(measure(Row(**json.loads(options.row)))))
        return
    import torch

    rows = planned_rows(options)
    machine = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"{options.threads} CPU thread(s)"
    print(f"{rows[0].architecture} architecture, {machine}, torch {torch.__version__}, {rows[0].repeats} repeats\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    results = []
    try:
        for row in rows:
            values = dataclasses.asdict(row) | measured_apart(row)
            aim = AIMS_MS.get((row.size, row.views, row.batch, row.dtype)) if row.architecture == "full" else None
            values |= {} if aim is None else {"aim ms": aim}
            results.append(values)
            print(markdown(values), flush=True)
    except KeyboardInterrupt:
        print("\nstopped; the rows above are complete")
    finally:
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(
                json.dumps({"machine": machine, "torch": torch.__version__, "rows": results}, indent=2)
            )


if __name__ == "__main__":
    main()
