"""Package roots are light, export what they say, and say what they export."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARIES = [
    "output_files",
    "colmap_models",
    "commands",
    "media_files",
    "image_metrics",
    "report_pages",
    "synthetic_objects",
    "train_runs",
    "splat_render",
    "difix_model",
    "difix_train",
    "splat_recon",
    "difix3d",
    "diffsplat",
    "sparsefusion",
]

DOORS = ("difix_model.diffusers",)
"""Modules that are public beside the roots."""

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("packages/*/README.md")])


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_public_name_resolves(library: str):
    module = importlib.import_module(library)
    assert module.__all__, f"{library} exports nothing"
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


def imports_of(document: Path) -> Iterator[tuple[str, str]]:
    """Modules of the project and names that the Python code in a document imports from them."""
    for block in re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES:
                yield from ((node.module, each.name) for each in node.names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_import_what_package_roots_export(document: Path):
    for module, name in imports_of(document):
        assert module in (*LIBRARIES, *DOORS), f"{document.name} reaches past a package's root into {module}"
        assert name in importlib.import_module(module).__all__, f"{module} does not export {name}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_unknown_name_is_an_attribute_error(library: str):
    module = importlib.import_module(library)
    with pytest.raises(AttributeError):
        _ = module.no_such_name


def test_package_roots_and_configs_import_no_torch():
    code = (
        "import sys, importlib.util\n"
        f"for library in {LIBRARIES!r}:\n"
        "    importlib.import_module(library)\n"
        "    for part in ('config', 'errors'):\n"
        "        if importlib.util.find_spec(library + '.' + part):\n"
        "            importlib.import_module(library + '.' + part)\n"
        "heavy = sorted({'torch', 'numba', 'diffusers', 'transformers', 'pycolmap'} & set(sys.modules))\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_import_is_enough_to_reconstruct():
    import splat_recon
    import splat_render

    names = ("Camera", "Gaussians", "make_rasterizer", "read_ply", "read_splats", "write_ply", "write_splats")
    assert all(getattr(splat_recon, name) is getattr(splat_render, name) for name in names)


THROUGH_ROOTS = [
    *("apps/difix-fix", "apps/difix-train", "apps/difix3d-enhance", "apps/difix3d-eval", "apps/difix3d-pairs"),
    *("apps/difix3d-train", "apps/diffsplat", "apps/sparsefusion", "apps/splat-recon", "benchmarks", "recipes"),
    *("tests/apps", "tests/commands", "tests/difix3d", "tests/difix_model", "tests/difix_train", "tests/image_metrics"),
    *("tests/media_files", "tests/sparsefusion", "tests/splat_recon", "tests/splat_render", "tests/train_runs"),
    *("tests/diffsplat", "tests/output_files", "tests/recipes", "tests/report_pages", "tests/support"),
    *("tests/synthetic_objects", "tests/colmap_models", "tests/workspace"),
]
"""Folders whose files take from a package's root what it exports, as users do."""


@pytest.mark.parametrize("folder", THROUGH_ROOTS)
def test_what_a_root_exports_is_imported_from_it(folder: str):
    found = []
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            library, _, rest = (getattr(node, "module", None) or "").partition(".")
            if isinstance(node, ast.ImportFrom) and rest and library in LIBRARIES:
                exported = _exported(library)
                found += [
                    f"{path}:{node.lineno}: {each.name}" for each in node.names if exported.get(each.name) == rest
                ]
    assert not found, "\n".join(found)


@functools.cache
def _exported(library: str) -> dict[str, str]:
    """Names that a root's stub exports, with the module inside the library that each comes from."""
    stub = next(REPOSITORY.glob(f"packages/*/src/{library}/__init__.pyi"), None)
    nodes = [] if stub is None else ast.parse(stub.read_text(encoding="utf-8")).body
    return {each.name: str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) for each in node.names}
