"""Who may import whom: docs/architecture.md's table, enforced on the syntax trees of every member."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

FIRST_PARTY = {path.name for path in REPOSITORY.glob("packages/*/src/*") if (path / "__init__.py").is_file()}
"""The libraries: packages that are imported."""

KINDS = ("packages", "apps", "recipes")
"""Folders of the workspace's members."""

ALLOWED_FIRST_PARTY = {
    "output_files": set(),
    "colmap_models": {"output_files"},
    "commands": {"output_files"},
    "media_files": {"output_files"},
    "image_metrics": set(),
    "report_pages": set(),
    "train_runs": {"output_files"},
    "splat_render": {"output_files"},
    "difix_model": {"colmap_models", "media_files", "output_files"},
    "splat_recon": {
        "colmap_models",
        "media_files",
        "image_metrics",
        "report_pages",
        "splat_render",
        "output_files",
        "train_runs",
    },
    "synthetic_objects": {"output_files"},
    "difix_train": {"report_pages", "image_metrics", "difix_model", "train_runs", "output_files"},
    "difix3d": {
        "media_files",
        "image_metrics",
        "report_pages",
        "difix_model",
        "splat_recon",
        "splat_render",
        "train_runs",
        "output_files",
    },
    "diffsplat": {"media_files", "image_metrics", "output_files", "splat_render", "synthetic_objects", "train_runs"},
    "sparsefusion": {
        "colmap_models",
        "media_files",
        "image_metrics",
        "report_pages",
        "output_files",
        "splat_render",
        "synthetic_objects",
        "train_runs",
    },
    "sparsefusion_app": {"commands", "sparsefusion", "output_files"},
    "difix_fix": {"commands", "difix_model"},
    "difix_train_app": {"commands", "difix_train", "output_files"},
    "splat_recon_app": {
        "commands",
        "image_metrics",
        "report_pages",
        "splat_recon",
        "splat_render",
        "output_files",
        "train_runs",
    },
    "difix3d_train_app": {"commands", "difix3d"},
    "difix3d_pairs_app": {"commands", "difix3d"},
    "difix3d_enhance_app": {"commands", "difix3d"},
    "difix3d_eval_app": {"commands", "difix3d", "output_files"},
    "embedded_weights": {"difix_model", "train_runs", "output_files"},
    "diffsplat_app": {"commands", "diffsplat", "image_metrics", "splat_render", "train_runs"},
    "sparsefusion_small": {"sparsefusion", "train_runs"},
    "diffsplat_small": {"diffsplat", "image_metrics", "synthetic_objects", "train_runs"},
}

FORBIDDEN_THIRD_PARTY = {
    "colmap_models": {"torch", "numba", "scipy", "pycolmap", "tyro", "rich"},
    "commands": {"torch", "numba", "diffusers", "transformers", "gsplat", "pycolmap"},
    "media_files": {"torch", "numba", "pycolmap", "tyro", "rich"},
    "image_metrics": {"torchmetrics", "numba", "tyro", "rich"},
    "report_pages": {"torch", "numba", "pycolmap", "tyro", "rich", "av"},
    "train_runs": {"diffusers", "transformers", "tyro", "rich", "gsplat", "pycolmap"},
    "splat_render": {"pycolmap", "av", "diffusers", "transformers", "accelerate", "tyro", "rich"},
    "difix_model": {"accelerate", "tyro", "rich", "gsplat", "pycolmap"},
    "splat_recon": {"diffusers", "transformers", "accelerate", "tyro", "rich"},
    "difix_train": {"tyro", "rich", "gsplat", "pycolmap"},
    "difix3d": {"accelerate", "tyro", "rich"},
    "synthetic_objects": {"torch", "tyro", "rich"},
    "diffsplat": {"accelerate", "tyro", "rich", "gsplat", "pycolmap"},
    "sparsefusion": {"tyro", "rich", "gsplat", "pycolmap", "transformers", "accelerate"},
}


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands, and whether it runs when its file is imported."""

    module: str
    path: Path
    line: int
    at_top: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{self.line} imports {self.module}"


@dataclass(frozen=True)
class Member:
    """A package, app or recipe of the workspace."""

    folder: Path
    module: str
    declared: frozenset[str]

    def imports(self) -> list[Import]:
        return [found for path in sorted(self.folder.glob("src/**/*.py")) for found in imports_of(path)]


def imports_of(path: Path) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        found += [Import(name, path, node.lineno, id(node) not in deferred) for name in names]
    return found


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def members() -> dict[str, Member]:
    found = {}
    for pyproject in sorted(path for kind in KINDS for path in REPOSITORY.glob(f"{kind}/*/pyproject.toml")):
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        requirements = list(project["dependencies"])
        for extra in project.get("optional-dependencies", {}).values():
            requirements += extra
        declared = frozenset(
            normalized(re.match(r"[A-Za-z0-9._-]+", requirement)[0])  # type: ignore[index]
            for requirement in requirements
        )
        (source,) = [path for path in (pyproject.parent / "src").iterdir() if path.is_dir()]
        found[source.name] = Member(pyproject.parent, source.name, declared)
    return found


@cache
def distributions_by_module() -> dict[str, set[str]]:
    return {module: {normalized(name) for name in names} for module, names in packages_distributions().items()}


def test_every_member_stands_in_the_table():
    assert set(members()) == set(ALLOWED_FIRST_PARTY)


@pytest.mark.parametrize("module", sorted(ALLOWED_FIRST_PARTY))
def test_first_party_imports_point_downward(module: str):
    allowed = ALLOWED_FIRST_PARTY[module] | {module}
    wrong = [
        str(found)
        for found in members()[module].imports()
        if found.module.split(".")[0] in (FIRST_PARTY | set(ALLOWED_FIRST_PARTY)) - allowed
    ]
    assert not wrong


@pytest.mark.parametrize("module", sorted(FORBIDDEN_THIRD_PARTY))
def test_libraries_leave_alone_what_is_not_theirs(module: str):
    wrong = [
        str(found)
        for found in members()[module].imports()
        if found.module.split(".")[0] in FORBIDDEN_THIRD_PARTY[module]
    ]
    assert not wrong


@pytest.mark.parametrize("module", sorted(ALLOWED_FIRST_PARTY))
def test_every_import_is_declared_by_its_member(module: str):
    member = members()[module]
    undeclared = []
    for found in member.imports():
        top = found.module.split(".")[0]
        if top == module or top in sys.stdlib_module_names or top == "__future__":
            continue
        distributions = distributions_by_module().get(top, {normalized(top)})
        if not distributions & member.declared:
            undeclared.append(str(found))
    assert not undeclared


def test_gsplat_is_compiled_in_one_file_and_rasterizes_in_another():
    allowed = {"gsplat_backend.py", "gsplat_build.py"}
    wrong = [
        str(found)
        for member in members().values()
        for found in member.imports()
        if found.module.split(".")[0] == "gsplat" and found.path.name not in allowed
    ]
    assert not wrong


def test_colmap_is_imported_in_one_file():
    """Importing it changes the process, which that file undoes."""
    wrong = [
        str(found)
        for member in members().values()
        for found in member.imports()
        if found.module.split(".")[0] == "pycolmap" and found.path.name != "pycolmap_import.py"
    ]
    assert not wrong
    assert len([*REPOSITORY.glob("*/*/src/**/pycolmap_import.py")]) == 1


@pytest.mark.parametrize("module", sorted(path.name for path in REPOSITORY.glob("apps/*/src/*") if path.is_dir()))
def test_apps_import_no_torch_before_arguments_are_parsed(module: str):
    heavy = {"torch", "numba", "diffusers", "transformers", "gsplat", "pycolmap"}
    wrong = [
        str(found) for found in members()[module].imports() if found.at_top and found.module.split(".")[0] in heavy
    ]
    assert not wrong
