"""Every row of the README's table, and every command of the guides, runs as printed on small inputs.

One runs as its own process, the others in this one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.readme_rows import REPOSITORY, Row, documented, rows, write_inputs

ROWS = list(rows())
GUIDES = list(documented())

PROCESSES = (("splat-recon", "export"),)
"""Of each of these the first row is run as its own process."""

MODULES = {"viewer": "viser", "serve": "gradio"}
"""What an optional part of the project brings."""


def name_of(row: Row) -> str:
    return " ".join(row.words[:5])


def main_of(command: str):
    for path in REPOSITORY.glob("apps/*/pyproject.toml"):
        scripts = tomllib.loads(path.read_text(encoding="utf-8"))["project"].get("scripts", {})
        if command in scripts:
            module, _, function = scripts[command].partition(":")
            return module, getattr(import_module(module), function)
    raise AssertionError(f"no app has the command {command}")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_inputs(tmp_path_factory.mktemp("readme"))


def test_the_table_is_read_whole() -> None:
    printed = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if "| `uv run" in line]
    assert len(ROWS) == len(printed) > 20
    assert not [row.command for row in ROWS if "--help" in row.command]


@pytest.mark.parametrize("row", [row for row in [*ROWS, *GUIDES] if not row.serves], ids=name_of)
def test_a_command_runs(
    row: Row, inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 3)
    monkeypatch.setattr("difix3d_train_app.estimating.seconds_per_reference_step", lambda _device: 0.01)
    words = row.run_in(inputs, tmp_path / "made")
    module, main = main_of(words[0])
    first = row == next((each for each in ROWS if each.kind == row.kind), None)
    if row.kind in PROCESSES and first:
        done = subprocess.run([sys.executable, "-m", module, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said, told = done.stdout, done.stderr
    else:
        assert main(words[1:]) == 0
        said, told = capfd.readouterr()
    assert told.count("Next: uv run ") == 1
    if row.kind != ("difix-train", "eval"):
        made = Path(said.splitlines()[-1])
        assert made.exists()
        assert made.resolve().is_relative_to(tmp_path)


def test_the_documentation_becomes_a_site(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    guides = {f"guides/{path.stem}.html" for path in (REPOSITORY / "docs" / "guides").glob("*.md")}
    assert pages >= {"index.html", "faq.html", *guides}
    assert len(guides) == 5
    # Nothing is loaded from elsewhere: what leads out are links.
    for page in pages:
        assert not re.search(r'(?:src|<link[^>]*href)="https?:', (tmp_path / "site" / page).read_text(encoding="utf-8"))


def test_pictures_are_small() -> None:
    large = [path.name for path in (REPOSITORY / "docs" / "images").iterdir() if path.stat().st_size > 200_000]
    assert not large


@pytest.mark.parametrize("row", [row for row in ROWS if row.serves], ids=name_of)
def test_a_page_says_what_it_needs(row: Row, inputs: dict[str, str], capfd: pytest.CaptureFixture, tmp_path) -> None:
    assert row.extra is not None
    if find_spec(MODULES[row.extra]):
        pytest.skip(f"the extra {row.extra} is installed: the tests of the pages open them in a browser")
    words = row.run_in(inputs, tmp_path)
    assert main_of(words[0])[1](words[1:]) == 2
    assert f"--extra {row.extra}" in capfd.readouterr().err


def test_the_walk_tells_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    from readme_walk import run  # pyright: ignore[reportMissingImports]

    made = tmp_path / "made.txt"
    code = (
        f"import sys; open({str(made)!r}, 'w').write('12345'); print({str(made)!r}); print('Next: x', file=sys.stderr)"
    )
    good = run([sys.executable, "-c", code], tmp_path)
    bad = run([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(2)"], tmp_path)
    assert (good.code, good.made, good.following) == (0, f"{made} (1 files, 0.00 MB)", "Next: x")
    assert bad.code == 2
    assert "why" in capsys.readouterr().out
