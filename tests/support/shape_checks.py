"""Every annotated shape in the libraries is checked while tests run; users pay nothing for it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping

FIRST_CALLS = 50
"""So many calls of each function are checked; training repeats its calls, and checking all would take a third of the
time of all tests."""

THEN_EVERY = 50
"""Of further calls, one in so many is checked."""

_jaxtyped = jaxtyping.jaxtyped


def check_shapes(packages: Path) -> None:
    """Check what is imported from now on, in a folder of packages.

    An int is good where a float is expected (PEP 484's numeric tower).
    """
    jaxtyping.jaxtyped = _sometimes  # The hook's decorator: it is looked up in every module that is imported.
    conf = "beartype.BeartypeConf(is_pep484_tower=True)"
    jaxtyping.install_import_hook(_modules_in(packages), f"beartype.beartype(conf={conf})")


def _sometimes(*, typechecker: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        checked = _jaxtyped(typechecker=typechecker)(function)
        if not inspect.isfunction(function):
            return checked
        calls = 0

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            looks = calls <= FIRST_CALLS or calls % THEN_EVERY == 0
            return (checked if looks else function)(*args, **kwargs)

        return call

    return decorate


def _modules_in(packages: Path) -> list[str]:
    """Every module whose shapes can be checked: all but those that hold compiled kernels."""
    modules = []
    for source in sorted(packages.glob("*/src")):
        for path in source.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path.name != "__init__.py" and "numba" not in text and "import triton" not in text:
                modules.append(".".join(path.relative_to(source).with_suffix("").parts))
    return modules
