"""The words of the field: names and phrases that were replaced do not come back (docs/conventions.md has the table)."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TABLE = ROOT / "docs" / "conventions.md"

SUFFIXES = {".py", ".md", ".html", ".toml", ".yml", ".yaml", ".json"}

TELLS_OF_OLD_NAMES = {
    "CHANGELOG.md",
    "docs/conventions.md",
    "benchmarks/same_losses.py",
    "tests/workspace/test_words.py",
}
"""Files that may name what is no longer used."""


def replaced() -> dict[str, str]:
    """The table of conventions.md: what is not written, and what is written in its place."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| not | but |") + 2
    found = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        old, new = (cell.strip() for cell in line.strip("|").split("|"))
        for word in old.split(", "):
            found[word.strip("`")] = new
    return found


def files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.splitlines() if name not in TELLS_OF_OLD_NAMES]
    return [path for name in names if (path := ROOT / name).suffix in SUFFIXES and path.is_file()]


def occurrences(pattern: re.Pattern[str], text: str, name: str) -> list[str]:
    return [f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in pattern.finditer(text)]


def pattern_of(words: list[str]) -> re.Pattern[str]:
    """Any of the words, whole; phrases may go over the end of a line."""
    return re.compile(r"\b(?:" + "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in words) + r")\b")


def test_names_and_phrases_that_were_replaced_are_not_used() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    table = replaced()
    assert len(table) > 50
    pattern = pattern_of(list(table))
    found = [
        place
        for path in files()
        for place in occurrences(pattern, path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert not found, "see the table of words in docs/conventions.md:\n" + "\n".join(found[:20])


def test_nothing_is_called_a_share() -> None:
    """It is a fraction, a weight, a probability or a shard; the verb is no name of a thing."""
    found = []
    for path in sorted(
        each for kind in ("packages", "apps", "recipes", "benchmarks") for each in ROOT.glob(f"{kind}/**/*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "name", None)
            if isinstance(node, ast.Name | ast.arg | ast.FunctionDef) and re.fullmatch(
                r"_?(\w+_)?shares?", str(name), re.I
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found, "\n".join(found)


def test_the_check_finds_whole_words_only_and_over_line_ends() -> None:
    pattern = pattern_of(["Places", "learned by heart"])
    text = "PlacesOf\nPlaces\nlearned by\nheart"
    assert occurrences(pattern, text, "f") == ["f:2: Places", "f:3: learned by\nheart"]
