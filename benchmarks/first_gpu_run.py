"""Everything this project keeps for a machine with a GPU, in one command, into one folder, in ten minutes.

What matters most comes first: does it work (gsplat's kernels against the CPU rasterizer, trainings, the loop with its
fixer, the tests marked `gpu`), then how fast it is (the full-size network against its floors, training steps against a
bare loop around gsplat, training steps of the network). Every part is a process of its own: what it measured so far is
kept when it fails, and when the time is over. OUT/tables.md is ready for docs/benchmarks.md.

    uv sync --extra cuda
    uv run python benchmarks/first_gpu_run.py --out runs/gpu                # at most ten minutes
    uv run python benchmarks/first_gpu_run.py --out runs/gpu --only latency --minutes 3
    uv run python benchmarks/first_gpu_run.py --out runs/gpu --long         # hours: the demo, training small weights
    uv run python benchmarks/first_gpu_run.py --out runs/dry --rehearse     # no GPU: tiny sizes on a fake one

The figures of a rehearsal mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "tests")]

from first_gpu_parts import PARTS  # noqa: E402
from first_gpu_report import REHEARSAL, SIZES, Report  # noqa: E402

GRACE_S = 10.0
"""What a part gets to end after it was told to."""

LONG: dict[str, list[str]] = {
    "demo": ["-m", "difix3d_train_app", "--device", "cuda", "--out", "{out}/demo"],
    "weights": ["-m", "embedded_weights", "--device", "cuda", "--out", "{out}/weights"],
}
"""Arguments of Python for the second command; {out} stands for the folder."""


@dataclass(frozen=True)
class Outcome:
    """How a part ended."""

    name: str
    what: str
    """done, failed, over time, or not begun."""

    seconds: float


def run_limited(command: list[str], log: Path, seconds: float) -> str:
    """Run a process, its output into a file; returns done, failed, or over time, when it is ended."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        try:
            return "failed" if process.wait(timeout=seconds) else "done"
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(timeout=GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return "over time"


def run_part(name: str, out: Path, *, rehearse: bool) -> None:
    """A part, in this process."""
    report = Report(out, name)
    if not rehearse:
        PARTS[name](SIZES, report)
        return
    from support.fake_cuda import FakeCuda  # pyright: ignore[reportMissingImports]

    with FakeCuda():
        PARTS[name](REHEARSAL, report)


def in_this_process(name: str, out: Path, seconds: float) -> str:
    """A rehearsed part; its error goes into its log."""
    try:
        run_part(name, out, rehearse=True)
    except Exception:
        (out / f"{name}.log").write_text(traceback.format_exc(), encoding="utf-8")
        return "failed"
    return "done"


def in_own_process(name: str, out: Path, seconds: float) -> str:
    """A part in a process of its own, which may not take longer than this."""
    command = [sys.executable, __file__, "--out", str(out), "--part", name]
    return run_limited(command, out / f"{name}.log", seconds)


def in_own_program(name: str, out: Path, seconds: float) -> str:
    """A part of the second command."""
    command = [sys.executable, *(part.format(out=out) for part in LONG[name])]
    return run_limited(command, out / f"{name}.log", seconds)


def run_all(names: list[str], out: Path, minutes: float, run: Callable[[str, Path, float], str]) -> list[Outcome]:
    """One part after the other while there is time; the tables are written after each."""
    end = time.monotonic() + 60 * minutes
    outcomes: list[Outcome] = []
    for name in names:
        begun = time.monotonic()
        what = run(name, out, end - begun) if end > begun else "not begun"
        outcomes.append(Outcome(name, what, time.monotonic() - begun))
        print(f"{name}: {what} after {outcomes[-1].seconds:.0f} s, see {out / name}.log", flush=True)
        write_tables(out, outcomes)
    return outcomes


def write_tables(out: Path, outcomes: list[Outcome]) -> None:
    """All parts as markdown, whether they came to their end or not."""
    lines = [machine(), ""]
    for outcome in outcomes:
        lines += [f"### {outcome.name}: {outcome.what}, {outcome.seconds:.0f} s", ""]
        table = out / f"{outcome.name}.md"
        lines += [table.read_text(encoding="utf-8")] if table.is_file() else ["No figures."]
        lines.append("")
    (out / "tables.md").write_text("\n".join(lines), encoding="utf-8")


def machine() -> str:
    """The GPU, as nvidia-smi has it, and the versions of what runs on it."""
    from importlib.metadata import version

    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        gpu = "no GPU: a rehearsal, whose figures mean nothing"
    return f"{gpu}; torch {version('torch')}, gsplat {version('gsplat')}; {os.cpu_count()} cores."


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the outputs")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *LONG], help="run these only")
    parser.add_argument("--minutes", type=float, help="stop after so many: 10, with --long 600")
    parser.add_argument("--long", action="store_true", help="the second command: what takes hours")
    parser.add_argument("--rehearse", action="store_true", help="on a fake GPU at tiny sizes")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    others = PARTS if options.long else LONG
    if options.only and (wrong := [name for name in options.only if name in others]):
        parser.error(
            f"{', '.join(wrong)} {'belongs to the first command: leave --long out' if options.long else 'needs --long'}"
        )
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_part(options.part, out, rehearse=False)
        return 0
    known: dict[str, Any] = LONG if options.long else PARTS
    names = [name for name in known if options.only is None or name in options.only]
    run = in_own_program if options.long else in_this_process if options.rehearse else in_own_process
    outcomes = run_all(names, out, options.minutes or (600 if options.long else 10), run)
    values = [{"name": one.name, "what": one.what, "seconds": round(one.seconds, 1)} for one in outcomes]
    (out / "outcomes.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(out / "tables.md")
    return 0 if all(one.what == "done" for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
