"""An environment of one library: it sees what the library, its extras and its tests declare, and nothing else.

Run in an environment that holds everything (`.venvs/all`): `python .ci/alone.py NAME` makes `.venvs/NAME`, in which
links lead to what is installed there. So nothing is installed twice, and bytecode is compiled once for all libraries.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections import defaultdict
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

SITE = Path(sysconfig.get_path("purelib"))


def main() -> int:
    """Make the environment of the library that is named; returns the exit status."""
    name = sys.argv[1]
    environment = Path(".venvs") / name
    wanted = _declared(name)
    installed = {_normal(each.name): each for each in metadata.distributions(path=[str(SITE)])}
    if missing := wanted - installed.keys():
        print(f"not installed in {SITE}: {', '.join(sorted(missing))}")
        return 1
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, environment], check=True)
    site = environment / SITE.relative_to(Path(sys.prefix))
    _link(SITE, site, {key: _paths(each) for key, each in installed.items()}, wanted)
    return 0


def _declared(name: str) -> set[str]:
    """The distributions that `uv sync --package NAME --all-extras --group test` would install here."""
    command = ["uv", "export", "--quiet", "--frozen", "--package", name, "--all-extras", "--group", "test"]
    command += ["--no-hashes", "--no-annotate", "--no-header"]
    found = set()
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        # `-e ./packages/NAME ; marker` is a member of the workspace, whose folder has its name.
        requirement = Requirement(re.sub(r"^-e \S*?([^/\s]+)(?=\s|$)", r"\1", line))
        if requirement.marker is None or requirement.marker.evaluate():
            found.add(_normal(requirement.name))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _paths(distribution: metadata.Distribution) -> list[str]:
    """The files of a distribution in the folder of packages; those elsewhere, as scripts, begin with `..`."""
    record = distribution.read_text("RECORD") or ""
    paths = [line.strip('"').split(",", 1)[0] for line in record.splitlines()]
    return [path for path in paths if not path.startswith(("..", "/", "__pycache__/"))]


def _link(source: Path, target: Path, paths: dict[str, list[str]], wanted: set[str]) -> None:
    """Link what belongs to the wanted distributions; a folder that others share is gone through, not linked."""
    owners: defaultdict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for owner, files in paths.items():
        for path in files:
            first, _, rest = path.partition("/")
            owners[first][owner].append(rest)
    target.mkdir(parents=True, exist_ok=True)
    for first, inner in owners.items():
        if not inner.keys() & wanted:
            continue
        if inner.keys() <= wanted:
            if not (target / first).exists():
                (target / first).symlink_to(source / first)
            continue
        shared = {owner: [rest for rest in files if rest] for owner, files in inner.items()}
        _link(source / first, target / first, shared, wanted)


if __name__ == "__main__":
    sys.exit(main())
