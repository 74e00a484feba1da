"""The README's commands exist, and its links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        *REPOSITORY.glob("packages/*/README.md"),
        *REPOSITORY.glob("apps/*/README.md"),
        *REPOSITORY.glob("recipes/*/README.md"),
    ]
)


UV_RUN = r"uv run (?:--(?:extra|group|package)\s\S+\s+|--(?!(?:extra|group|package)\s)\S+\s+)*"
"""The start of a command in the project's environment, with uv's own options."""


def entry_points() -> set[str]:
    found = set()
    for pyproject in REPOSITORY.glob("apps/*/pyproject.toml"):
        found |= set(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"].get("scripts", {}))
    return found


def name_of(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


def test_readme_shows_the_two_set_up_commands():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "uv run difix3d-train" in readme
    assert "uv run pytest" in readme


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_exist(document: Path):
    known = entry_points() | {"pytest", "python", "ruff", "pyright", "mkdocs"}
    commands = re.findall(UV_RUN + r"([a-z][\w.-]*)", document.read_text(encoding="utf-8"))
    assert not sorted(set(commands) - known)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_scripts_named_in_commands_exist(document: Path):
    scripts = re.findall(UV_RUN + r"python ([\w./-]+\.py)", document.read_text(encoding="utf-8"))
    assert not [script for script in scripts if not (REPOSITORY / script).is_file()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing
