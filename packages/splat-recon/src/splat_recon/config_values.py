"""Whether a config that was read from a file holds what its fields say. Imports no torch."""

import dataclasses
import math
import types
import typing
from typing import Any

MOST = 10**15
"""Whole numbers of configs are counts and seeds, and smaller than this."""


def check_kinds(config: Any, prefix: str = "") -> None:
    """Compare the values of a dataclass, and of those in it, with the annotations of its fields.

    Args:
        config: The config, already made, so that its own ranges hold.
        prefix: Put before the fields' names.

    Raises:
        ValueError: A value is of another kind, or a number that is not finite or too large.
    """
    hints = typing.get_type_hints(type(config))
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if not _fits(value, hints[item.name]):
            raise ValueError(f"{name} cannot be {repr(value)[:60]}")
        if dataclasses.is_dataclass(value):
            check_kinds(value, f"{name}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if hint in (None, type(None)):
        return value is None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Compared first, as whole numbers may be beyond floating-point ones.
        return number and abs(value) < MOST and math.isfinite(value)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        kinds = [parts[0]] * len(value) if len(parts) == 2 and parts[1] is ... else list(parts)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    return not isinstance(hint, type) or isinstance(value, hint)
