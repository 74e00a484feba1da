"""The fuzzer of all readers: a short run of it, and that it notices what it is for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_readers.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="cases run in forked processes")

BROKEN = """
import sys
sys.path.insert(0, {folder!r})
import fuzz_readers
from fuzz_formats import Reader, each

WHOLE = b"whole " * 50

def breaks(path):
    content = path.read_bytes()
    if content != WHOLE:
        raise KeyError("lost")

def hangs(path):
    while path.read_bytes() != WHOLE:
        pass

def swells(path):
    if path.read_bytes() != WHOLE:
        bytearray(64 << 30)

def dies(path):
    if path.read_bytes() != WHOLE:
        import os, signal
        os.kill(os.getpid(), signal.SIGSEGV)

def reads(path):
    path.read_bytes()

def whole(folder):
    (folder / "a").write_bytes(WHOLE)

fuzz_readers.SECONDS, fuzz_readers.IMPORTED = 1, ()
fuzz_readers.READERS = {{
    read.__name__: Reader(seeds=whole, read=each(read)) for read in (reads, breaks, hangs, swells, dies)
}}
sys.argv = ["fuzz_readers.py", "--cases", "10"]
sys.exit(fuzz_readers.main())
"""


def rows(text: str) -> dict[str, list[int]]:
    """Cases, refused, read, tracebacks and hangs by reader."""
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name.strip(): [int(cell) for cell in cells] for name, *cells in table[1:]}


def test_every_reader_reads_or_refuses_damaged_files():
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--cases", "60", "--seed", "11"], capture_output=True, text=True, check=False
    )
    found = rows(done.stdout)
    assert found["all"][0] == 60, done.stdout + done.stderr
    assert found["all"][3:] == [0, 0], done.stdout
    assert found["all"][1] > 0
    assert done.returncode == 0


def test_the_fuzzer_counts_tracebacks_hangs_swelling_and_deaths():
    code = BROKEN.format(folder=str(FUZZER.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    found = rows(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert found["reads"] == [2, 0, 2, 0, 0]
    assert found["breaks"] == [2, 0, 0, 2, 0]
    assert found["hangs"] == [2, 0, 0, 0, 2]
    assert found["swells"] == [2, 0, 0, 2, 0]
    assert found["dies"] == [2, 0, 0, 2, 0]
    assert "KeyError" in done.stdout
    assert "SIGSEGV" in done.stdout
    assert "MemoryError" in done.stdout
