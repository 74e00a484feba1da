"""Everything this project keeps for a machine with a GPU, in one command, into one folder.

It runs the tests marked `gpu`, the rasterizers against each other, the fixer's latencies at full size, what its
training steps cost, the demo, and the training of small weights, one after the other; what fails is written down and
does not stop the rest. Tables for docs/benchmarks.md stand in OUT/*.txt afterwards.

    uv run python benchmarks/first_gpu_run.py --out runs/gpu
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

STEPS: dict[str, list[str]] = {
    "tests": ["-m", "pytest", "-m", "gpu", "--run-slow", "-q"],
    "rasterizer": ["benchmarks/rasterizer.py", "--cuda"],
    "splat_step": [
        *("benchmarks/splat_step.py", "--device", "cuda", "--gaussians", "500000", "--size", "1024", "--steps", "1000"),
        *("--out", "{out}/splat_step"),
    ],
    "latency": [
        *("benchmarks/pipeline_latency.py", "--device", "cuda", "--out", "{out}/latency.json"),
        *("--compile", "no", "default", "max-autotune", "--repeats", "30"),
    ],
    "train_step": ["benchmarks/train_step.py", "--device", "cuda", "--out", "{out}/train_step"],
    "demo": ["-m", "difix3d_train_app", "--device", "cuda", "--out", "{out}/demo"],
    "weights": [
        *("benchmarks/embedded_weights.py", "--device", "cuda", "--out", "{out}/weights"),
        *("--num-scenes", "800", "--num-processes", "16"),
    ],
}
"""Arguments of Python for each step; {out} stands for the folder. The last trains the small weights."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the outputs")
    parser.add_argument("--only", nargs="+", choices=sorted(STEPS), help="run these only")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only or STEPS:
        command = [sys.executable, *(part.format(out=options.out) for part in STEPS[name])]
        start = time.perf_counter()
        with (options.out / f"{name}.txt").open("w", encoding="utf-8") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        failed += [name] if code else []
        print(f"{name}: exit code {code} after {time.perf_counter() - start:.0f} s, see {options.out / name}.txt")
    print(f"failed: {', '.join(failed)}" if failed else f"all done, in {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
