"""Does a library import with only what is installed here: every module, and every name that any of its lines imports?

Run in the environment of one library: `python .ci/imports.py packages/NAME`. Imports inside functions count as well,
also those that no test reaches. Prints what is missing and exits with 1, or prints how much was tried.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path


def main() -> int:
    """Try every import of the library in the folder that is named; returns the exit status."""
    source = Path(sys.argv[1]) / "src"
    modules = {_module_name(path, source): path for path in sorted(source.rglob("*.py"))}
    missing, tried = [], 0
    for module, path in modules.items():
        if path.name == "__main__.py":
            continue
        for name, attribute, line in [(module, None, 1), *_imports(path, module)]:
            tried += 1
            try:
                _load(name, attribute)
            except Exception as error:
                # What others' modules ask of the machine, as gsplat's do of its GPU, is nothing that could be declared.
                if isinstance(error, ImportError) or name in modules:
                    missing.append(f"{path}:{line}: {name}{f'.{attribute}' if attribute else ''}: {error!r}")
    print("\n".join(missing) or f"{len(modules)} modules and {tried - len(modules)} imported names are there")
    return 1 if missing or not modules else 0


def _module_name(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, module: str) -> Iterator[tuple[str, str | None, int]]:
    """Module, name taken from it and line of every import of a file, wherever it stands."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((name, alias.name, node.lineno) for alias in node.names)


def _load(name: str, attribute: str | None) -> None:
    module = importlib.import_module(name)
    if attribute in (None, "*") or hasattr(module, attribute):
        return
    # A submodule, which is not run: gsplat's would begin to compile.
    if importlib.util.find_spec(f"{name}.{attribute}") is None:
        raise ImportError(f"there is no {attribute} in {name}")


if __name__ == "__main__":
    sys.exit(main())
