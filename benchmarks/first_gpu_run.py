"""Everything this project keeps for a machine with a GPU, in one command, into one folder.

It runs the tests marked `gpu`, the rasterizers against each other, the fixer's latencies at full size, the demo, and
the training of small weights, one after the other; what fails is written down and does not stop the rest. Tables for
docs/benchmarks.md stand in OUT/*.txt afterwards.

    uv run python benchmarks/first_gpu_run.py --out runs/gpu
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

SCRATCH = ("--no-posterior-noise", "--lpips-weight", "0", "--gram-weight", "0", "--views", "target")
"""What the training of a small network from scratch has in common with that of the embedded weights."""

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
    "demo": ["-m", "difix3d_train_app", "--device", "cuda", "--out", "{out}/demo"],
    "pairs": [
        *("-m", "difix3d_pairs_app", "--generated", "100", "--first-seed", "2000"),
        *("--num-views", "20", "--max-steps", "500", "--out", "{out}/pairs"),
    ],
    "weights": [
        *("-m", "difix_train_app", "run", "--preset", "embedded", "--pairs", "{out}/pairs/pairs.json"),
        *("--out", "{out}/weights", "--device", "cuda", *SCRATCH, "--l2-weight", "0", "--log-mse-weight", "1"),
        *("--trainable", "unet", "--drop-reference-prob", "0.15", "--wrong-reference-prob", "0.1", "--cache"),
        *("--height", "144", "--width", "192", "--batch-size", "32", "--max-steps", "10000"),
        *("--learning-rate", "5e-4", "--schedule", "cosine", "--warmup-steps", "100", "--ema-decay", "0.995"),
        *("--horizontal-flip-prob", "0.5"),
    ],
}
"""Arguments of Python for each step; {out} stands for the folder. The last two train small weights with the
autoencoder fixed at its identity start, which the model card of the embedded weights names as untried."""


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
