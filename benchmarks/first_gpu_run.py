"""Everything this project keeps for a machine with a GPU, in one command, into one folder.

It runs the tests marked `gpu`, the rasterizers against each other, the fixer's latencies at full size, and the demo on
CUDA, one after the other; what fails is written down and does not stop the rest. Tables for docs/benchmarks.md stand
in OUT/*.txt afterwards.

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
    "rasterizer": ["benchmarks/rasterizer.py", "--device", "cuda"],
    "latency": [
        *("benchmarks/pipeline_latency.py", "--device", "cuda", "--architecture", "full"),
        *("--dtypes", "bfloat16", "float16", "--sizes", "512x512", "1024x576", "--batches", "1", "4"),
        *("--repeats", "30"),
    ],
    "demo": ["-m", "difix3d_train_app", "--device", "cuda"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the outputs")
    parser.add_argument("--only", nargs="+", choices=sorted(STEPS), help="run these only")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only or STEPS:
        command = [sys.executable, *STEPS[name]]
        if name == "demo":
            command += ["--out", str(options.out / "demo")]
        start = time.perf_counter()
        with (options.out / f"{name}.txt").open("w", encoding="utf-8") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        failed += [name] if code else []
        print(f"{name}: exit code {code} after {time.perf_counter() - start:.0f} s, see {options.out / name}.txt")
    print(f"failed: {', '.join(failed)}" if failed else f"all done, in {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
