"""Configs as plain values and back, and whether what was read from a file is what the fields say. Imports no torch."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 10**15
"""Whole numbers of configs are counts and seeds, and smaller than this."""


def config_of(kind: type[T], values: Any, prefix: str = "") -> T:
    """The inverse of `dataclasses.asdict`, for configs whose nested configs are of one kind each.

    Args:
        values: Plain values, as JSON has them; fields that are missing keep their defaults.

    Raises:
        ValueError: A field is unknown, or a value is of another kind or out of range.
        TypeError: The same, noticed by a config's own comparisons.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(values, Mapping):
        raise TypeError(f"{prefix.removesuffix('.') or 'settings'} cannot be {repr(values)[:60]}")
    unknown = sorted(prefix + name for name in values if name not in hints)
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    made = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            made[name] = config_of(typing.cast("type", hints[name]), value, f"{prefix}{name}.")
        else:
            # JSON has no tuples.
            made[name] = tuple(value) if isinstance(value, list) else value
    config = kind(**made)
    check_kinds(config, prefix)
    return config


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values of nested configs side by side, with names such as `mixture.novel_prob`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def check_kinds(config: Any, prefix: str = "") -> None:
    """Compare the values of a dataclass, and of those in it, with the annotations of its fields.

    Args:
        config: The config, already made, so that its own ranges hold.

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
