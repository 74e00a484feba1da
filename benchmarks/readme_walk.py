"""A newcomer's walk: from a fresh clone, every row of the README's table, with seconds, exit code and what was made.

    uv run python benchmarks/readme_walk.py --folder /tmp/walk

The clone, its environment and all results are in the folder. Inputs are small and generated, and commands get the flags
that make them short (`tests/support/readme_rows.py`); commands that serve a page are asked for it once and stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from support.readme_rows import Row, rows  # noqa: E402  # pyright: ignore[reportMissingImports]

START_SECONDS = 300
"""How long a page may take until it is there."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the walk."""

    command: str
    """As it was run."""

    seconds: float
    """Wall time."""

    code: int
    """Exit code."""

    made: str
    """The last line of standard output, with the size of what it names."""

    following: str
    """The `Next:` line."""


def main() -> int:
    """Walk, and print a table; 0 where every command ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="new folder for the clone and all that is made")
    parser.add_argument("--only", help="only rows whose command has this in it")
    args = parser.parse_args()
    clone, out = args.folder.resolve() / "clone", args.folder.resolve() / "out"
    steps = [
        run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], Path.cwd()),
        run(["uv", "sync", "--frozen", "--quiet"], clone),
    ]
    if any(step.code for step in steps):
        return 1
    inputs = written_inputs(clone, args.folder.resolve() / "inputs")
    for number, row in enumerate(rows(), start=1):
        if args.only is None or args.only in row.command:
            steps.append(walked(row, number, clone, inputs, out))
            (args.folder / "walk.json").write_text(json.dumps([asdict(step) for step in steps], indent=1) + "\n")
    failed = [step for step in steps if step.code]
    print(f"{len(steps)} commands, {sum(step.seconds for step in steps):.0f} s, {len(failed)} failed")
    return 1 if failed else 0


def written_inputs(clone: Path, folder: Path) -> dict[str, str]:
    """What the rows read, made in the clone's environment."""
    code = "import json, sys; from pathlib import Path; from support.readme_rows import write_inputs; "
    code += "print(json.dumps(write_inputs(Path(sys.argv[1]))))"
    environment = {**os.environ, "PYTHONPATH": str(clone / "tests")}
    command = ["uv", "run", "--frozen", "python", "-c", code, str(folder)]
    done = subprocess.run(command, cwd=clone, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def walked(row: Row, number: int, clone: Path, inputs: dict[str, str], out: Path) -> Step:
    """Run a row in the clone."""
    extra = [] if row.extra is None else ["--extra", row.extra]
    command = ["uv", "run", "--frozen", *extra, *row.run_in(inputs, out / f"{number:02d}")]
    return served(command, clone) if row.serves else run(command, clone)


def run(command: list[str], folder: Path) -> Step:
    """Run a command to its end."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return told(command, time.monotonic() - begun, done.returncode, done.stdout, done.stderr)


def served(command: list[str], folder: Path) -> Step:
    """Start a command that serves a page, fetch the page, and stop it."""
    begun = time.monotonic()
    # In a session of its own, Ctrl-C reaches uv and what it started, as in a terminal.
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    said, size = "", 0
    assert server.stdout is not None
    for line in server.stdout:
        said += line
        if found := re.search(r"http://[\w.:]+", line):
            with urllib.request.urlopen(found[0], timeout=START_SECONDS) as page:
                size = len(page.read())
            break
    os.killpg(server.pid, signal.SIGINT)
    rest, _ = server.communicate(timeout=START_SECONDS)
    code = server.returncode if size else 1
    return told(command, time.monotonic() - begun, code, f"a page of {size} bytes\n", said + rest)


def told(command: list[str], seconds: float, code: int, stdout: str, stderr: str) -> Step:
    """Print a line on a command."""
    last = stdout.splitlines()[-1] if stdout.strip() else ""
    made = f"{last} ({size_of(Path(last))})" if last and Path(last).exists() else last
    following = next((line for line in stderr.splitlines() if line.startswith("Next: ")), "")
    step = Step(command=shlex.join(command), seconds=round(seconds, 1), code=code, made=made, following=following)
    print(f"{seconds:7.1f} s  exit {code}  {step.command}\n{'':19}{made or '-'}\n{'':19}{following or '-'}", flush=True)
    if code:
        print("\n".join(stderr.splitlines()[-12:]), flush=True)
    return step


def size_of(path: Path) -> str:
    """Of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return f"{len(files)} files, {sum(each.stat().st_size for each in files) / 1e6:.2f} MB"


if __name__ == "__main__":
    sys.exit(main())
