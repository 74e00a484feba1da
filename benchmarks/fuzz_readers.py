"""Throw damaged files at everything that reads files: read, or refused in a sentence, in bounded time and memory.

    uv run python benchmarks/fuzz_readers.py --cases 5000
    uv run python benchmarks/fuzz_readers.py --only photo "scene as text" --cases 500 --seed 7 --keep FOLDER

A reader starts from small files of a format, as the project or other programs write them. A case changes one of these
files: bytes, truncation, counts, tokens of its text, and for what is packed (gzip) the content inside. It is read in a
process of its own with a limit of memory; a case that takes longer than the limit of time is a hang. The same seed and
number of cases are the same cases, whatever else runs. Prints a table by reader and the first tracebacks; exits with 1
where there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
from fuzz_formats import READERS, Reader, is_refusal  # noqa: E402
from fuzz_mutations import mutated  # noqa: E402

MEMORY = 2 << 30
"""Bytes that a case may take on top of what the process has when it starts."""

WHOLE_NOT_READ = 3
"""Exit code of a process whose reader does not read what is whole."""

SECONDS = 10
"""Processor time that a case may take."""

MOST_WAITED = 60
"""A case that sleeps, and all that a process does before its first, may take this many times as long by the clock."""

HUNG = (-signal.SIGXCPU, -signal.SIGKILL)
"""Exit codes of processes that took too much of the processor's time, or of the clock's."""

FORKED = multiprocessing.get_context("fork")
"""Children have what is imported here."""


@dataclass
class Outcomes:
    """Of one reader's cases."""

    cases: int = 0
    refused: int = 0
    read: int = 0
    tracebacks: int = 0
    hangs: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    """The first case of each kind of traceback."""


IMPORTED = ("av", "PIL.Image", "PIL.ImageFile", "numba", "torch", "plyfile", "splat_recon.io.colmap",
            "splat_recon.io.camera_files", "splat_recon.scene.synthetic.generate",
            "splat_recon.io.sfm.video_frames", "splat_render.files.formats", "difix_model.formats.checkpoint",
            "difix_model.references.camera_poses", "difix3d.evaluation.scores", "train_runs.checkpoints")  # fmt: skip


def run_case(reader: Reader, seeds: Path, folder: Path, seed: tuple[int, int, int]) -> tuple[str, str]:
    """Outcome and what is to be said of it."""
    rng = np.random.default_rng(seed)
    shutil.copytree(seeds, folder)
    files = sorted(path for path in folder.rglob(reader.changed) if path.is_file())
    path = files[int(rng.integers(len(files)))]
    whole = path.read_bytes()
    damaged = whole
    while damaged == whole:
        damaged = mutated(whole, rng)
    path.write_bytes(damaged)
    # Of folders of single files the others would only take time.
    if all(one.parent == folder for one in files) and reader.changed == "*" and not reader.needs_all:
        for other in files:
            if other != path:
                other.unlink()
    if rng.random() < 0.5:
        reader.repair(folder)
    try:
        reader.read(folder)
    except BaseException as error:
        if is_refusal(error):
            return "refused", ""
        last = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in last if "/src/" in frame.filename] or list(last)
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return "tracebacks", f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:140]} [{path.name}]"
    return "read", ""


def work(name: str, seeds: Path, place: Path, first: int, last: int, seed: int, keep: Path | None, pipe: Any) -> None:
    """Run cases in this process, and send the outcome of each."""
    logging.disable(logging.CRITICAL)
    # What is whole must be read; and the libraries' own memory does not count.
    shutil.copytree(seeds, place / "whole", dirs_exist_ok=True)
    try:
        READERS[name].read(place / "whole")
    except Exception:
        traceback.print_exc()
        os._exit(WHOLE_NOT_READ)
    with Path(os.devnull).open("wb") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = list(READERS).index(name)
    for case in range(first, last):
        folder = place / f"{case}"
        shutil.rmtree(folder, ignore_errors=True)
        spent = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (spent + 1 + SECONDS, resource.RLIM_INFINITY))
        outcome, said = run_case(READERS[name], seeds, folder, (seed, number, case))
        if keep is not None and outcome == "tracebacks":
            shutil.copytree(folder, keep / f"{name} {case}".replace(" ", "_"), dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        pipe.send((case, outcome, said))


def fuzzed(name: str, count: int, seed: int, place: Path, keep: Path | None) -> Outcomes:
    """Run a reader's cases; a process that hangs or dies is replaced by another one, after the case."""
    outcomes, seeds, case = Outcomes(), place / "seeds", 0
    seeds.mkdir(parents=True)
    # Children do everything, so that the threads of libraries do not live in this process.
    writer = FORKED.Process(target=READERS[name].seeds, args=(seeds,))
    writer.start()
    writer.join()
    if writer.exitcode:
        sys.exit("the seeds cannot be written")
    while case < count:
        ours, theirs = FORKED.Pipe(duplex=False)
        worker = FORKED.Process(target=work, args=(name, seeds, place, case, count, seed, keep, theirs))
        worker.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            while ours.poll(MOST_WAITED * SECONDS):
                case, outcome, words = ours.recv()
                _count(outcomes, outcome, f"case {case}: {words}")
                case += 1
            worker.kill()
        worker.join()
        if worker.exitcode == WHOLE_NOT_READ:
            sys.exit(f"the reader {name} does not read its whole files")
        if worker.exitcode and case < count:
            if worker.exitcode in HUNG:
                _count(outcomes, "hangs", f"case {case} takes more than {SECONDS} s")
            else:
                _count(outcomes, "tracebacks", f"the process dies at case {case} ({ending(worker.exitcode)})")
            case += 1
    return outcomes


def _count(outcomes: Outcomes, outcome: str, said: str) -> None:
    outcomes.cases += 1
    setattr(outcomes, outcome, getattr(outcomes, outcome) + 1)
    if outcome in ("tracebacks", "hangs"):
        kind = re.sub(r"case \d+|'[^']*'|\d+", "", said.partition(": ")[2].partition(": ")[0] or said)
        outcomes.examples.setdefault(kind, said)


def ending(code: int) -> str:
    """How a process ended."""
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="in all, shared among the readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(READERS), metavar="READER", help=", ".join(READERS))
    parser.add_argument("--keep", type=Path, help="folder for the files that end in a traceback")
    args = parser.parse_args()
    names = args.only or list(READERS)
    for module in IMPORTED:
        # Once, and not again in every process.
        importlib.import_module(module)
    total, width = Outcomes(), max(map(len, READERS))
    print(f"| {'reader':{width}} | cases | refused | read | tracebacks | hangs |", flush=True)
    print(f"|{'-' * (width + 2)}|---|---|---|---|---|", flush=True)
    examples: list[str] = []
    for index, name in enumerate(names):
        count = args.cases // len(names) + (index < args.cases % len(names))
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            found = fuzzed(name, count, args.seed, Path(place), args.keep)
        print(row(name.ljust(width), found), flush=True)
        for key in ("cases", "refused", "read", "tracebacks", "hangs"):
            setattr(total, key, getattr(total, key) + getattr(found, key))
        examples += [f"{name}: {said}" for said in found.examples.values()]
    print(row("all".ljust(width), total))
    for example in examples:
        print(example)
    return 1 if total.tracebacks or total.hangs else 0


def row(name: str, found: Outcomes) -> str:
    return f"| {name} | {found.cases} | {found.refused} | {found.read} | {found.tracebacks} | {found.hangs} |"


if __name__ == "__main__":
    sys.exit(main())
