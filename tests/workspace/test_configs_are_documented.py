"""Configs are documented data: every field of every config has a docstring, and somebody reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Field:
    """One field of a config class, and whether a docstring follows it."""

    path: Path
    owner: str
    name: str
    documented: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(REPOSITORY)}: {self.owner}.{self.name}"


def sources() -> list[Path]:
    return sorted(path for kind in ("packages", "apps", "recipes") for path in REPOSITORY.glob(f"{kind}/*/src/**/*.py"))


def fields_of(path: Path) -> Iterator[Field]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.ClassDef) and node.name.endswith("Config")):
            continue
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                documented = (
                    isinstance(following, ast.Expr)
                    and isinstance(following.value, ast.Constant)
                    and isinstance(following.value.value, str)
                )
                yield Field(path, node.name, statement.target.id, documented)


@cache
def config_fields() -> list[Field]:
    return [field for path in sources() for field in fields_of(path)]


def test_there_are_configs():
    assert len(config_fields()) > 40


def test_every_field_has_its_docstring():
    assert not [str(field) for field in config_fields() if not field.documented]


def test_every_field_has_a_reader():
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources())
    read = set(re.findall(r"\.([A-Za-z_]\w*)", text))
    assert not [str(field) for field in config_fields() if field.name not in read]
